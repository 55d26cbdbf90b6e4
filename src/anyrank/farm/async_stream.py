"""Coroutines as sources and sinks of tasks, with any executor of `concurrent.futures`."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable
from typing import Any

from anyrank.errors import UsageError

_END: Any = object()


async def stream(
    function: Callable[[Any], Any],
    source: Iterable[Any] | AsyncIterable[Any],
    executor: concurrent.futures.Executor,
    *,
    ahead: int = 64,
    ordered: bool = False,
    return_exceptions: bool = False,
) -> AsyncIterator[Any]:
    """Yield the value of a function for each item of a source, while further items arrive. Not collective.

    Parameters
    ----------
    function : callable
        A function of one item.
    source : iterable or async iterable
        The items: a list, a generator, or an async generator, which may wait for a network or a file.
    executor : concurrent.futures.Executor
        Where the function runs: `farm.Executor`, `farm.RankExecutor` or any other one.
    ahead : int
        The most items that are taken from the source and whose values have not been yielded. A slow consumer makes
        the source wait.
    ordered : bool
        Whether values come in the order of the items; otherwise as soon as they are there.
    return_exceptions : bool
        Whether the exception of an item takes the place of its value. Otherwise it is raised, and items that have not
        started are cancelled.

    Yields
    ------
    Any
        The values.

    Raises
    ------
    UsageError
        If `ahead` is less than 1.

    Examples
    --------
    >>> import asyncio
    >>> async def total(executor):
    ...     return sum([value async for value in farm.stream(abs, [-1, 2, -3], executor)])
    >>> with farm.Executor(2) as executor:
    ...     asyncio.run(total(executor))
    6
    """
    if ahead < 1:
        raise UsageError(f"ahead={ahead}: use at least 1.")
    items = _items(source)
    arriving: asyncio.Future[Any] | None = asyncio.ensure_future(_next(items))
    running: list[asyncio.Future[Any]] = []
    try:
        while arriving or running:
            heads = running[:1] if ordered else [*running]
            taking = [arriving] if arriving and len(running) < ahead else []
            await asyncio.wait([*heads, *taking], return_when=asyncio.FIRST_COMPLETED)
            if taking and taking[0].done():
                item = taking[0].result()
                if item is not _END:
                    running.append(asyncio.wrap_future(executor.submit(function, item)))
                arriving = None if item is _END else asyncio.ensure_future(_next(items))
            for future in (future for future in heads if future.done()):
                running.remove(future)
                error = future.exception()
                yield error if error is not None and return_exceptions else future.result()
    finally:
        for future in [*running, *([arriving] if arriving else [])]:
            future.cancel()


async def _items(source: Iterable[Any] | AsyncIterable[Any]) -> AsyncIterator[Any]:
    if isinstance(source, AsyncIterable):
        async for item in source:
            yield item
    else:
        for item in source:
            yield item


async def _next(items: AsyncIterator[Any]) -> Any:
    return await anext(items, _END)
