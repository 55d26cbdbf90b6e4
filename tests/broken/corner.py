"""Wrong: all edges are packed before any ghost cell has arrived, so that corners are old if both axes are split."""

from anyrank import Program, State, param


class Corner(Program):
    """A mean over nine points, with an exchange of its own."""

    n: int = param(12, "points per side", ge=4)
    steps: int = param(6, "steps", ge=0)

    def declare(self, state: State) -> None:
        state.field("T", (self.n, self.n), halo=1)

    def setup(self, state: State) -> None:
        j, i = state.T.indices
        state.T[...] = (3 * j + 5 * i) % 7

    def step(self, state: State) -> None:
        exchange(state.T)
        T, (m, n) = state.T.storage, state.T.layout.local_shape
        state.T[...] = sum(T[a : a + m, b : b + n] for a in range(3) for b in range(3)) / 8.0 - 0.5


def exchange(field):
    """Wrap along unsplit axes, then send full edges along split axes."""
    array, layout = field.storage, field.layout  # field.array is read-only
    for axis in (0, 1):
        along = array.swapaxes(0, axis)  # a view whose first axis is the one to fill
        if layout.grid[axis] == 1:
            along[0], along[-1] = along[-2], along[1]
    packed = {axis: array.swapaxes(0, axis)[[1, -2]] for axis in (0, 1) if layout.grid[axis] > 1}
    for axis, edges in packed.items():  # right: pack the second axis after the ghosts of the first have arrived
        along = array.swapaxes(0, axis)
        before, after = (layout.rank_at(neighbour(layout, axis, step)) for step in (-1, 1))
        along[-1] = layout.world.comm.sendrecv(edges[0], before, 0, source=after, recvtag=0)
        along[0] = layout.world.comm.sendrecv(edges[1], after, 1, source=before, recvtag=1)


def neighbour(layout, axis, step):
    return [(p + step * (a == axis)) % g for a, (p, g) in enumerate(zip(layout.position, layout.grid, strict=True))]
