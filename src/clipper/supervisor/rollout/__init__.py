"""The shell of ``clipper.rollout``: gathers its facts and carries out its instructions."""
