"""Commands show replicas on the nodes of a cluster, and the leader."""

import pytest

from clipper.api.schemas import LeaseStatus, Replica, Status, WorkerStatus
from clipper.cli.commands.model import replica_table
from clipper.cli.commands.server import print_running, status_rows
from clipper.cli.output import Output
from clipper.supervisor.operations.operations import by_node


def replica(number: int, state: str = "ready", node: str | None = None) -> Replica:
    return Replica(f"m:1#{number}.g1", "m", "1", state, 9, 0, None, 4, "l", node)  # type: ignore[arg-type]


ON_NODES = [replica(1, node="10.0.0.2 (ab)"), replica(2, node="10.0.0.2 (ab)"), replica(3, "starting", "10.0.0.3 (cd)")]


@pytest.mark.parametrize("replicas", [[], [replica(1), replica(2)]])
def test_without_a_cluster_there_is_no_word_of_nodes(replicas: list[Replica]) -> None:
    assert by_node(replicas) == {}
    columns, rows = replica_table(replicas)
    assert "node" not in columns and all(len(row) == len(columns) for row in rows)


def test_each_node_and_its_replicas_are_shown() -> None:
    counts = by_node([*ON_NODES, replica(4)])
    assert counts == {"10.0.0.2 (ab)": {"ready": 2}, "10.0.0.3 (cd)": {"starting": 1}}
    columns, rows = replica_table([*ON_NODES, replica(4)])
    assert columns[-1] == "node"
    assert [row[-1] for row in rows] == ["10.0.0.2 (ab)", "10.0.0.2 (ab)", "10.0.0.3 (cd)", None]
    status = Status("1", 1, "h", "q", "m", 1.0, True, (), (), 1, 1, {"ready": 3, "starting": 1}, nodes=counts)
    shown = dict(status_rows(status))
    assert shown["node 10.0.0.2 (ab)"] == "2 ready" and shown["node 10.0.0.3 (cd)"] == "1 starting"
    assert (shown["replicas"], shown["manager"]) == ("3 ready, 1 starting", "local")


def test_workers_are_shown_with_their_nodes() -> None:
    workers = (
        WorkerStatus(0, 7, "ready", 0, 5, None, "10.0.0.2"),
        WorkerStatus(1, 7, "lost", 1, 0, "cannot be reached", "10.0.0.3"),
        WorkerStatus(2, 9, "ready", 0, 5, None),
    )
    shown = dict(status_rows(Status("1", 1, "h", "q", "m", 1.0, True, (), workers, 1, 1, {})))
    assert shown["worker 0 on 10.0.0.2"] == "ready, pid 7, 0 restarts"
    assert shown["worker 1 on 10.0.0.3"] == "lost, pid 7, 1 restarts, cannot be reached"
    assert shown["worker 2"] == "ready, pid 9, 0 restarts"


def leader_row(**lease: object) -> object:
    status = Status("1", 1, "h", "q", "m", 1.0, True, (), (), 1, 1, {}, lease=LeaseStatus(**lease))  # type: ignore[arg-type]
    return dict(status_rows(status))["leader"]


def test_who_leads_is_shown_on_each_server_that_shares_a_registry() -> None:
    known: dict[str, object] = {
        "registry": "redis://h/0",
        "epoch": 7,
        "leader": "http://a:1338",
        "since": 86400.0 * 365,
    }
    shown = str(leader_row(role="leader", renewed_s_ago=0.41, **known))
    assert shown.startswith("this server, since 197") and shown.endswith(
        "epoch 7, lease renewed 0.4 s ago; no server stands by"
    )
    assert str(leader_row(role="leader", standby="http://b:1338", **known)).endswith("; standby http://b:1338")
    assert str(leader_row(role="standby", **known)).startswith("http://a:1338, since 197")
    assert leader_row(role="standby", registry="redis://h/0") == "not known; this server is a standby of redis://h/0"
    assert "leader" not in dict(status_rows(Status("1", 1, "h", "q", "m", 1.0, True, (), (), 1, 1, {})))


def test_a_server_whose_registry_is_away_says_what_it_waits_for(capsys: pytest.CaptureFixture[str]) -> None:
    away = ("this server is a standby, and does not know which server leads: Connection refused",)
    lease = LeaseStatus("standby", "redis://h/0")
    print_running(
        Output(as_json=False), Status("1", 1, "h", "q", "m", 1.0, False, away, (), 0, 0, {}, lease=lease), "runs"
    )
    said = " ".join("".join(capsys.readouterr()).split())
    assert "it waits for the registry redis://h/0" in said and "Connection refused" in said
    assert "next: clipper status, clipper logs" in said and "--server" not in said
