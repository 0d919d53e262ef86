"""The shell of ``clipper.supervisor.rollout``: gathers its facts and carries out its instructions."""
