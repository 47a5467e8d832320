"""The client documentation names every option and error."""

import inspect
import re
from pathlib import Path

import pytest

import smallfry.client
from smallfry.client import Client, ClientError, errors
from smallfry.client.remote import RETRIED

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "client.md"
OPTIONS = [name for name in inspect.signature(Client.__init__).parameters if name not in ("self", "url")]
ERRORS = [
    name
    for name in smallfry.client.__all__
    if inspect.isclass(kind := getattr(smallfry.client, name)) and issubclass(kind, ClientError)
]


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_has_its_row(option):
    assert f"\n| `{option}` |" in PAGE.read_text()


@pytest.mark.parametrize("error", ERRORS)
def test_every_error_is_named(error):
    assert error in PAGE.read_text()


def test_the_table_of_retries_is_that_of_the_code():
    table = PAGE.read_text().partition("| failure | error | retried |")[2].partition("\n\n")[0]
    rows = [row for row in table.splitlines() if row.endswith("| yes |")]
    assert set(re.findall(r"`([A-Z]\w+)`", "".join(rows))) == {kind.__name__ for kind in RETRIED}


def test_every_error_class_can_be_imported_from_the_package():
    kinds = [kind for kind in vars(errors).values() if inspect.isclass(kind)]
    defined = {kind.__name__ for kind in kinds if issubclass(kind, ClientError)}
    assert defined <= set(smallfry.client.__all__)
