"""europarl: debates of the European Parliament, aligned English and French lines (Europarl v7), for Table 4.

python -m corpora.europarl
python align.py ... --parallel en=data/downloads/europarl-v7/europarl-v7.fr-en.en fr=...
"""

import hashlib
import io
import shutil
import tarfile
import tempfile
import urllib.request
from http.client import HTTPException
from pathlib import Path

from common import Parser, UserError, run_script

URL = "https://www.statmt.org/europarl/v7/fr-en.tgz"
SHA256 = "80f5d52113e23bfe51f890569ed69d2a1348127bca0894d07d1d23e0d0fac1e9"
FILES = {"en": "europarl-v7.fr-en.en", "fr": "europarl-v7.fr-en.fr"}


def fetch(folder: Path) -> dict[str, Path]:
    """A file of aligned lines for each language."""
    target = folder / "europarl-v7"
    if not target.exists():
        archive = io.BytesIO(download())
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as working, tarfile.open(fileobj=archive) as members:
            plain = Path(working) / "plain"
            plain.mkdir()
            for file in FILES.values():  # only content: the archive's paths and modes are ignored
                with members.extractfile(file) as lines, open(plain / file, "wb") as copy:
                    shutil.copyfileobj(lines, copy)
            plain.rename(target)
    return {language: target / file for language, file in FILES.items()}


def download() -> bytes:
    """Download the archive of 200 MB and check its hash."""
    print(f"downloading {URL}", flush=True)
    try:
        with urllib.request.urlopen(URL, timeout=60) as response:
            archive = response.read()
    except (OSError, HTTPException) as error:
        raise UserError(f"{URL} cannot be downloaded ({error}); align.py takes other lines in step") from None
    if (found := hashlib.sha256(archive).hexdigest()) != SHA256:
        raise UserError(f"{URL} gave {len(archive)} bytes with the SHA-256 {found}, expected {SHA256}")
    return archive


def main() -> None:
    """Write the debates to data/downloads, unless they are there."""
    Parser(__doc__).parse_args()
    fetch(Path("data/downloads"))


if __name__ == "__main__":
    run_script(main)
