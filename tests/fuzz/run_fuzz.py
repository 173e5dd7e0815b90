"""Fuzz with atheris, which needs the extra ``fuzz``: every target in a process of its own, all at the same time.

    python tests/fuzz/run_fuzz.py --seconds 30
    python tests/fuzz/run_fuzz.py --seconds 30 decoder
    python tests/fuzz/run_fuzz.py --again FILE decoder     an input that broke something, once more

What was learnt about interesting inputs is kept in .cache/fuzz and used by the next run. An input that breaks a promise
is written there as well, and its path printed.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
KEPT = ROOT / ".cache" / "fuzz"
LONGEST = (1 << 20) + 2
NAMES = ("envelope", "locks", "decoder", "configuration")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=30)
    parser.add_argument("--again", type=Path, help="a file with one input")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("names", nargs="*")
    options = parser.parse_args()
    names = options.names or list(NAMES)
    if options.again is not None:
        again(names[0], options.again.read_bytes())
    elif options.inside:
        fuzz(names[0], options.seconds)
    else:
        sys.exit(1 if start(names, options.seconds) else 0)


def start(names: list[str], seconds: int) -> list[str]:
    """Run the targets side by side. The names of those that failed."""
    KEPT.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="cachekit-fuzz-") as directory:  # they end without removing anything
        return run(names, seconds, {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": directory})


def run(names: list[str], seconds: int, environment: dict[str, str]) -> list[str]:
    running = {}
    for name in names:
        log = (KEPT / f"{name}.log").open("w+")
        command = [sys.executable, __file__, "--inside", "--seconds", str(seconds), name]
        running[name] = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment), log
    failed = []
    for name, (process, log) in running.items():
        code = process.wait()
        log.seek(0)
        lines = log.read().splitlines()
        log.close()
        if code != 0 or not any(line.startswith("Done ") for line in lines):
            failed.append(name)
            print(*lines[-60:], sep="\n")
        print(f"{name}: {'FAILED, ' if name in failed else ''}{lines[-1] if lines else 'said nothing'}", flush=True)
    return failed


def fuzz(name: str, seconds: int) -> None:
    """Fuzz one target in this process, which ends with it."""
    import atheris

    # `weight` runs a line for each of a million items: with instruments it would take all the time.
    with atheris.instrument_imports(
        include=["cachekit.codec", "cachekit.config", "tomllib"], exclude=["cachekit.codec.weight"]
    ):
        import fuzz_targets
    target = fuzz_targets.TARGETS[name]
    corpus = KEPT / name
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(target.seeds()):
        (corpus / f"seed-{number}").write_bytes(seed)
    fuzz_targets.warm_up(target)
    options = [
        f"-max_total_time={seconds}", f"-max_len={LONGEST}", "-timeout=300", "-rss_limit_mb=4096",
        "-print_final_stats=1", f"-artifact_prefix={KEPT}/{name}-",
    ]  # fmt: skip
    atheris.Setup([name, str(corpus), *options], lambda data: fuzz_targets.check(target, data))
    atheris.Fuzz()


def again(name: str, data: bytes) -> None:
    import fuzz_targets

    fuzz_targets.warm_up(fuzz_targets.TARGETS[name])
    fuzz_targets.check(fuzz_targets.TARGETS[name], data)
    print("nothing was broken")


if __name__ == "__main__":
    main()
