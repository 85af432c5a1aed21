"""Java and the jars of Apache Kafka: found, or fetched once with Maven into a cache of the user."""

import fcntl
import importlib.resources
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from schemas.errors import Fatal
from streams.local.child import Child
from streams.local.log_sink import LogSink
from streams.local.service import Interrupted, never, run_to_end

VERSION = "4.3.1"
MIN_JAVA = 17
FETCH_WITHIN_S = 600.0
_INSTALL = "install Java 17 or later and Maven (Debian: openjdk-17-jre-headless maven), or use --broker tansu"


def java() -> str:
    """The path of a Java that is new enough: JAVA_HOME's, else the PATH's. Raises Fatal when there is none."""
    home = os.environ.get("JAVA_HOME")
    found = shutil.which("java", path=f"{home}/bin") if home else shutil.which("java")
    if found is None:
        where = f"JAVA_HOME ({home})" if home else "the PATH"
        raise Fatal("Apache Kafka needs Java", f"no java on {where}", _INSTALL)
    version = _java_version(found)
    if version < MIN_JAVA:
        raise Fatal(f"Apache Kafka needs Java {MIN_JAVA} or later", f"{found} is version {version}", _INSTALL)
    return found


def jars_dir() -> Path:
    """Where the jars are, or will be."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "grok-insights" / f"kafka-{VERSION}"


def fetch_jars(log: LogSink, is_cancelled: Callable[[], bool] = never) -> Path:
    """The folder of the jars, fetched when it is not there yet. Raises Fatal or Interrupted.

    The folder appears whole or not at all, and of two that fetch at once the second waits and uses the first one's.
    """
    jars = jars_dir()
    if has_jars(jars):
        return jars
    program = maven()
    try:
        jars.parent.mkdir(parents=True, exist_ok=True)
        with (jars.parent / f"{jars.name}.lock").open("w") as lock:
            _wait_for(lock.fileno(), is_cancelled)
            if not has_jars(jars):
                _fetch(program, jars, log, is_cancelled)
    except OSError as error:
        raise Fatal("Kafka's jars cannot be stored", f"{jars}: {error.strerror}", "set XDG_CACHE_HOME") from error
    return jars


def _fetch(program: str, jars: Path, log: LogSink, is_cancelled: Callable[[], bool]) -> None:
    with tempfile.TemporaryDirectory(dir=jars.parent, prefix=f"{jars.name}.new-") as scratch:
        argv = [program, "-q", "-B", "-ntp", "-Dstyle.color=never", "-f", str(_pom()), "dependency:copy-dependencies"]
        argv += [f"-Dkafka.version={VERSION}", "-DincludeScope=runtime", f"-DoutputDirectory={scratch}/jars"]
        child = Child("kafka-jars", argv, os.environ, log)
        try:
            run_to_end(child, log, FETCH_WITHIN_S, is_cancelled)
        except Fatal as error:
            hint = f"check the network and Maven's settings, or use --broker tansu; {error.hint}"
            raise Fatal("Maven could not fetch Apache Kafka", error.why, hint) from error
        (Path(scratch) / "jars").replace(jars)


def _wait_for(lock: int, is_cancelled: Callable[[], bool]) -> None:
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if is_cancelled():
                raise Interrupted("kafka-jars") from None
            # A tenth of a second is short next to a download.
            time.sleep(0.1)
        else:
            return


def has_jars(jars: Path) -> bool:
    """The folder holds a fetched broker."""
    return any(jars.glob("kafka_*.jar"))


def maven() -> str:
    """The path of Maven. Raises Fatal when there is none."""
    found = shutil.which("mvn")
    if found is None:
        raise Fatal("Apache Kafka's jars are not here yet", "no mvn on the PATH to fetch them", _INSTALL)
    return found


def _java_version(binary: str) -> int:
    try:
        shown = subprocess.run([binary, "-version"], capture_output=True, text=True, timeout=30, check=True).stderr
    except (OSError, subprocess.SubprocessError) as error:
        raise Fatal("java cannot be run", str(error), _INSTALL) from error
    match = re.search(r'version "(?:1\.)?(\d+)', shown)
    return int(match[1]) if match else 0


def _pom() -> Path:
    """In a wheel it lies in the package, in a checkout beside it."""
    package = Path(str(importlib.resources.files("streams")))
    shipped = package / "_infra" / "kafka" / "pom.xml"
    return shipped if shipped.exists() else package.parent / "infra" / "kafka" / "pom.xml"
