"""``python -m benchmarks.calibration``: ask a server about pictures; keep and draw how sure and how right it is."""

from benchmarks.calibration.models import ASKED
from benchmarks.calibration.picture import PICTURE, draw
from benchmarks.calibration.results import result, table, write
from benchmarks.calibration.stream import measure


def main() -> None:
    results = {name: result(answers) for name, answers in measure(ASKED).items()}
    write(results)
    draw(results, PICTURE)
    print(table(results))


if __name__ == "__main__":
    main()
