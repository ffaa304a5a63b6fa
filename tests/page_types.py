"""Check the JavaScript of the page: its types with TypeScript where npm brings it, and its syntax with node at least.

`python -m tests.page_types` installs TypeScript into `build/typescript`, once. Exit 1: an error; 0: none, or no node
here, which it says.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "compactor" / "web" / "page"
HOME = ROOT / "build" / "typescript"
VERSION = "5.9"


def main() -> int:
    """Check; the exit code."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None:
        print("the types of the page are not checked: there is no node here")
        return 0
    files = sorted(PAGE.glob("*.js"))
    for path in files:
        text = path.read_text()
        command = [node, "--input-type=module", "--check"]
        done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
        if done.returncode:
            print(f"{path}:\n{done.stderr}", file=sys.stderr)
            return 1
    compiler = HOME / "node_modules" / "typescript" / "bin" / "tsc"
    if not compiler.exists() and npm is not None:
        HOME.mkdir(parents=True, exist_ok=True)
        command = [
            npm,
            "install",
            "--silent",
            "--no-audit",
            "--no-fund",
            "--prefix",
            str(HOME),
            f"typescript@{VERSION}",
        ]
        subprocess.run(command, capture_output=True, check=False, timeout=300)
    if not compiler.exists():
        print("the syntax of the page is right; its types are not checked: TypeScript does not install here")
        return 0
    code = subprocess.run([node, str(compiler), "-p", str(ROOT / "tests" / "page_types.json")], check=False).returncode
    if code == 0:
        print(f"the types of {len(files)} files of the page are right")
    return code


if __name__ == "__main__":
    sys.exit(main())
