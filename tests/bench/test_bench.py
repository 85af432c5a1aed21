"""The short form of `make bench`: every candidate does all of its work once. Counts are checked, times are not."""

from collections.abc import Iterator

import pytest

from tests.bench.drain import CANDIDATES, drain
from tests.bench.environment import Environment, environment
from tests.bench.gateway import GATEWAYS, under_load
from tests.bench.workload import Workload
from tests.support.servers import skip_unless_kafka

pytestmark = pytest.mark.kafka
_WORKLOAD = Workload(records=500)


@pytest.fixture(scope="module")
def env(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Environment]:
    skip_unless_kafka()
    with environment(tmp_path_factory.mktemp("bench")) as env:
        yield env


@pytest.mark.parametrize("name", CANDIDATES)
async def test_a_candidate_does_all_of_its_work(env: Environment, name: str) -> None:
    done = await drain(env, CANDIDATES[name], _WORKLOAD, max_in_flight=100)
    assert (done.rows, done.events, done.uncommitted) == (500, 500, 0)
    assert done.calls == _WORKLOAD.distinct == 350


@pytest.mark.parametrize("name", GATEWAYS)
async def test_a_gateway_accepts_everything(env: Environment, name: str) -> None:
    done = await under_load(env, name, warm_up_s=0.1, seconds=0.5)
    assert done.load.answered > 0
    assert done.refused == 0
