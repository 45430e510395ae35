"""A wheel, built and installed outside the clone, carries its data files and runs the demo."""

import os
import signal
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from tests.process import free_port
from tests.sandbox.test_demo import shell

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this source."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, timeout=300)
    [built] = folder.glob("*.whl")
    return built


def test_its_name_and_what_is_in_it(wheel: Path) -> None:
    assert wheel.name.startswith("fhir_document_gateway-")
    names = zipfile.ZipFile(wheel).namelist()
    for file in (ROOT / "schemas").rglob("*.toml"):
        assert f"gateway/schemas_data/{file.relative_to(ROOT / 'schemas').as_posix()}" in names
    assert not [name for name in names if name.startswith(("tests/", "schemas/"))]
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_it_runs_the_demo(wheel: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "venv", with_pip=False)
    site = next((tmp_path / "venv").glob("lib/python*/site-packages"))
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(site), str(wheel)]
    subprocess.run(command, check=True, timeout=300)
    # Its dependencies are those of this environment, without the clone itself.
    dependencies = [path for path in sys.path if path.endswith("site-packages")]
    (site / "dependencies.pth").write_text("\n".join(dependencies))
    python = tmp_path / "venv" / "bin" / "python"
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    where = subprocess.run(
        [python, "-c", "import gateway, gateway.schemas as s; print(gateway.__file__, s.find_schemas())"],
        cwd=tmp_path,
        env=env,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert str(ROOT) not in where
    port = free_port()
    demo = [python, "-m", "gateway", "demo", "--port", str(port)]
    process = subprocess.Popen(demo, cwd=tmp_path, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if "AuditEvent?_count=5" in line:
                break
        assert '"resourceType":"CapabilityStatement"' in shell(f"curl -s http://127.0.0.1:{port}/fhir/metadata")
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=60)
        assert (process.returncode, error) == (0, "")
    finally:
        if process.poll() is None:
            process.terminate()
            process.communicate(timeout=60)
