"""europarl: debates of the European Parliament, aligned English and French lines (Europarl v7), for Table 4.

python -m corpora.europarl
python align.py ... --parallel en=data/downloads/europarl-v7/europarl-v7.fr-en.en fr=...
"""

import hashlib
import io
import tarfile
import urllib.request
from http.client import HTTPException
from pathlib import Path

from common import Parser, UserError, run_script, write

URL = "https://www.statmt.org/europarl/v7/fr-en.tgz"
SHA256 = "80f5d52113e23bfe51f890569ed69d2a1348127bca0894d07d1d23e0d0fac1e9"
FILES = {"en": "europarl-v7.fr-en.en", "fr": "europarl-v7.fr-en.fr"}


def fetch(folder: Path) -> dict[str, Path]:
    """A file of aligned lines for each language."""
    files = {language: folder / "europarl-v7" / name for language, name in FILES.items()}
    if not all(file.exists() for file in files.values()):
        archive = io.BytesIO(download())
        with tarfile.open(fileobj=archive) as members:
            for file in files.values():  # only content: the archive's paths and modes are ignored
                write(file, members.extractfile(file.name).read())
    return files


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
