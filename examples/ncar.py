"""Compare a finished 64×64 weather run with NCAR's reference: python examples/ncar.py RUN_FOLDER."""

import hashlib
import sys
from pathlib import Path

import h5py

#: SHA-256 of the reference's fields (little-endian float64, C order); tests/answers/ has them and their source.
REFERENCE = {
    "p": "200ce83ca1a4e1a9bc4bbdf8618ad32fcee5d33c58397d897a309f699f715613",
    "u": "3cc48668ccd21b581db6f05320c2d544398c6fe4c87d096db710fcbce5392693",
    "v": "9febcccb0e6e616f0d48b7a148b1a8941d682c02c78f294911df7c7254eeed5c",
}


def main(folder: str) -> int:
    """Print one line per field; return 0 if every bit equals the reference, else 1."""
    newest = max(Path(folder, "checkpoints").glob("step-*.h5"))
    wrong = 0
    with h5py.File(newest, "r") as file:
        for name, expected in REFERENCE.items():
            same = hashlib.sha256(file["fields"][name][...].astype("<f8").tobytes()).hexdigest() == expected
            wrong += not same
            print(f"weather 64×64, step 4000, {name}: {'every bit is' if same else 'DIFFERS from'} NCAR's")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
