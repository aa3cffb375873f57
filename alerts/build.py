#!/usr/bin/env python3
"""Makes prometheusrule.yaml, for the Prometheus operator, from the plain rule files beside it.

    alerts/build.py             writes it
    alerts/build.py --check     says whether it is in step, and writes nothing

The groups are taken line by line and moved in below `spec`, comments and all: both have the same form, so nothing needs to
understand YAML here.
"""

import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
TARGET = FOLDER / "prometheusrule.yaml"
FILES = ["recording.yml", "usage.yml", "cost.yml", "limits.yml", "tacho.yml"]
HEAD = """\
# Made by build.py from the rule files beside it; change those.
#
# The operator picks rules by label (spec.ruleSelector of your Prometheus): add the ones yours looks for. The chart
# kube-prometheus-stack looks for `release: <name of the release>`.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: tacho
  labels:
    app.kubernetes.io/name: tacho
spec:
  groups:
"""


def groups(name: str) -> str:
    """What stands below `groups:` in a rule file, moved in by two."""
    text = (FOLDER / name).read_text(encoding="utf-8")
    head, found, body = text.partition("\ngroups:\n")
    strange = [line for line in head.splitlines() if not line.startswith("#")]
    if not found or strange or not body.startswith("  - name: "):
        sys.exit(f"{name}: a comment, then `groups:` and the groups moved in by two, is all that is understood")
    return "".join(f"  {line}" if line.strip() else line for line in body.splitlines(keepends=True))


def main() -> None:
    here = {path.name for path in FOLDER.glob("*.yml")}
    if here != set(FILES):
        sys.exit(f"rule files and the list in build.py differ: {sorted(here ^ set(FILES))}")
    made = HEAD + "\n".join(groups(name) for name in FILES)
    if sys.argv[1:] == ["--check"]:
        if not TARGET.exists() or TARGET.read_text(encoding="utf-8") != made:
            sys.exit(f"{TARGET.name} is not what the rule files say: run alerts/build.py")
    elif sys.argv[1:]:
        sys.exit(__doc__)
    else:
        TARGET.write_text(made, encoding="utf-8")


if __name__ == "__main__":
    main()
