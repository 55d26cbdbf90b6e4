"""The main module of workers: a worker is not a rank, so it leaves the launch before anything can start MPI."""

from anyrank.child import leave_launch

leave_launch()

from anyrank.farm.worker import main  # noqa: E402

if __name__ == "__main__":
    main()
