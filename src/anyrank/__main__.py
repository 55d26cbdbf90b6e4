"""`python -m anyrank`."""

import sys
from pathlib import Path

if __name__ == "__main__":
    # -m puts the working folder first, and every rank would look there for whatever it imports.
    if sys.path[0] == str(Path.cwd()):
        del sys.path[0]
    from anyrank.cli import main

    main()
