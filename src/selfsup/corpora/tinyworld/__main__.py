"""`python -m selfsup.corpora.tinyworld`: compile the shipped language and record its exact floors."""

import json

from ...tokenization import write_atomically
from .corpus import FLOORS, HELD_OUT_SEED, SIZES
from .floors import masking_floor, next_token_floor, nsp_accuracy, sop_accuracy
from .grammar import compile_language
from .language import SHIPPED, Language
from .pairs import NEGATIVES, Pairs


def main() -> None:
    """Write world.json, and floors.json for the world and the village."""
    floors = {}
    for size in ("world", "village"):
        data = compile_language(size)
        language = Language(data)
        pairs = Pairs(language)
        texts = language.texts(SIZES[size][1], HELD_OUT_SEED)  # the texts that models are scored on
        floors[size] = {
            "masking": vars(masking_floor(language, texts)),
            "next_token": vars(next_token_floor(language, texts)),
            "nsp": {kind: vars(nsp_accuracy(pairs, negatives=kind)) for kind in NEGATIVES},
            "sop": vars(sop_accuracy(pairs)),
        }
        print(size, json.dumps(floors[size]))
        if size == "world":
            write_atomically(SHIPPED, json.dumps(data, separators=(",", ":")).encode())
    write_atomically(FLOORS, (json.dumps(floors, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
