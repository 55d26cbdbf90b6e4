"""`python -m anyrank`."""

from anyrank.cli import main

if __name__ == "__main__":
    main()
