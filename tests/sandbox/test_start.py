"""The page that the sandbox opens with: each call, copied as it stands, gives what it says."""

import html
import re
import shutil
import subprocess
import sys

import httpx

from tests.sandbox.test_demo import demo, shell


def test_each_call_of_the_page_gives_what_it_says() -> None:
    with demo() as running:
        site = re.search(r"http://127\.0\.0\.1:\d+", running.text)
        assert site is not None
        answer = httpx.get(site[0])
        assert answer.status_code == 200
        assert "script" not in re.sub(r"<summary>JavaScript.*?</pre>", "", answer.text, flags=re.DOTALL).lower()
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        steps = re.findall(r"<h3>\d+\. (\d+).*?</h3>(.*?)(?=<h3>|<h2>)", answer.text, re.DOTALL)
        assert [status for status, _ in steps] == ["201", "200", "403", "200", "400", "200"]
        for status, text in steps:
            curl, python, script = (html.unescape(block) for block in re.findall(r"<pre>(.*?)</pre>", text, re.DOTALL))
            assert shell(curl).startswith(f"HTTP/1.1 {status}"), curl
            told = subprocess.run([sys.executable, "-c", python], capture_output=True, text=True, timeout=60, check=True).stdout
            # (what curl has pushed is known when Python pushes it)
            assert told.split()[0] == {"201": "200"}.get(status, status), python
            assert script.startswith("const answer = await fetch(")
            if node := shutil.which("node"):
                said = subprocess.run(
                    [node, "--input-type=module", "-e", script], capture_output=True, text=True, timeout=60, check=True
                )
                assert said.stdout.split()[0] == {"201": "200"}.get(status, status), script
        for address in re.findall(r'href="([^"]+)"', answer.text):
            assert httpx.get(html.unescape(address)).status_code < 400, address
