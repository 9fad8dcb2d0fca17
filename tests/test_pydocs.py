"""The corpus of docstrings: read from source files, without running what stands in them."""

import pytest

from pydocs import pydocs_files, read_docstrings


def test_docstrings_are_read_from_source_without_running_it(tmp_path):
    source = tmp_path / "module.py"
    source.write_text(
        '"""Module."""\nraise SystemExit("imported")\n'
        'class A:\n    """Class."""\n    if True:\n        async def f(self):\n            r"""Method \\d."""\n'
        'def g():\n    "not" + "a docstring"\n    x = """an expression"""\n'
        'try:\n    pass\nexcept ValueError:\n    def h():\n        """In a handler."""\n'
    )
    assert read_docstrings(("m", source)) == ["Module.", "Class.", "Method \\d.", "In a handler."]


@pytest.mark.parametrize("content", [b"def f(:\n", b"\xff\xfe\x00", b"x = '\x00'\n", b""])
def test_files_that_are_no_python_have_no_docstrings(tmp_path, content):
    source = tmp_path / "broken.py"
    source.write_bytes(content)
    assert read_docstrings(("m", source)) == []


def test_every_package_is_there_and_no_installed_one_counts_as_the_standard_library():
    names = [name for name, _ in pydocs_files()]
    assert {name.partition("/")[0] for name in names} == {"stdlib", "torch", "numpy", "scipy", "networkx"}
    assert len(set(names)) == len(names) > 4000
    assert "stdlib/pydoc_data/topics.py" in names
    assert not any("site-packages" in name for name in names)
