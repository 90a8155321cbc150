"""The presets: each is a configuration as it stands, and says how to register."""

import re
from pathlib import Path

import pytest

from bearerd.core.accounts import ClientAuth, Grant, OAuthSource
from bearerd.settings import Loaded, load
from bearerd.settings.presets import (
    Question,
    list_questions,
    load_presets,
    name_account,
    read_values,
    remove_value,
    replace_part,
    replace_value,
)
from bearerd.shipped import find_shipped

PROJECT = Path(__file__).parent.parent
PRESETS = load_presets()
NAMES = ["auth0", "databricks", "entra", "github", "gitlab", "google", "keycloak", "oidc", "okta"]
SAMPLE = PRESETS["oidc"].text


def load_text(folder: Path, text: str) -> Loaded:
    """With the file that a client's secret is in."""
    (folder / "work-client-secret").write_text("made-up\n")
    path = folder / "bearerd.toml"
    path.write_text(text)
    path.chmod(0o600)
    return load(path, {}, {})


def fill(text: str) -> str:
    return re.sub(r"YOUR-[A-Z-]*[A-Z]", "abc-123", text).replace("example.com", "example.org")


def source_of(folder: Path, name: str) -> OAuthSource:
    source = load_text(folder, fill(PRESETS[name].text)).configuration.accounts["work"].source
    assert isinstance(source, OAuthSource)
    return source


def test_there_is_one_for_each_of_these() -> None:
    assert list(PRESETS) == NAMES
    assert find_shipped("providers") == PROJECT / "config" / "providers"


@pytest.mark.parametrize("name", NAMES)
class TestEach:
    def test_it_loads_with_its_placeholders_filled(self, tmp_path: Path, name: str) -> None:
        loaded = load_text(tmp_path, fill(PRESETS[name].text))
        assert loaded.warnings == ()
        (route,) = loaded.configuration.routes
        assert route.origin.scheme == "https"

    def test_it_loads_with_everything_taken_in(self, tmp_path: Path, name: str) -> None:
        text = re.sub(r"(?m)^#(?=\w+ = )", "", fill(PRESETS[name].text))
        assert load_text(tmp_path, text).configuration.accounts

    def test_a_person_may_log_in_with_it_and_stay_so(self, tmp_path: Path, name: str) -> None:
        source = source_of(tmp_path, name)
        assert source.grant is Grant.AUTHORIZATION_CODE
        assert source.interactive
        params = dict(source.authorization_params)
        assert (
            "offline_access" in source.scopes
            or params.get("access_type") == "offline"
            or name in {"github", "gitlab"}
        )

    def test_its_first_lines_say_what_it_is_and_how_to_register(self, name: str) -> None:
        preset = PRESETS[name]
        head = preset.text.partition("\n\n")[0].splitlines()
        assert re.fullmatch(r"[A-Z][\w ]+: .+", preset.title)
        assert all(line.startswith("#") for line in head)
        assert head[1] == "#"
        assert head[2].startswith("# Register ")
        assert head[-1].startswith("# Replace what begins with YOUR-")
        assert any(re.match(r"#   (redirect|callback) UR[IL]", line) for line in head)

    def test_the_redirect_uri_it_says_to_register_is_the_one_it_uses(self, tmp_path: Path, name: str) -> None:
        used = source_of(tmp_path, name).redirect_uri or "http://127.0.0.1:6750/-/callback"
        (line,) = re.findall(r"#   (?:redirect|callback) UR[IL] +(.*)", PRESETS[name].text)
        if name == "google":
            assert line.startswith("none to register")
        elif name == "entra":
            assert line.startswith(used.replace(":6750", ""))
        else:
            assert re.split(r",? ", line)[0].rstrip(",") == used

    def test_whom_it_is_a_client_of_is_for_a_person_to_say(self, name: str) -> None:
        """No client of somebody else's is in it."""
        assert str(read_values(PRESETS[name].text)["client_id"]).startswith("YOUR-")

    def test_every_line_can_be_read_in_a_terminal(self, name: str) -> None:
        assert max(map(len, PRESETS[name].text.splitlines())) <= 118


class TestQuirks:
    """What each provider's documentation says and an account without it would stumble over."""

    def test_the_generic_one(self, tmp_path: Path) -> None:
        """Without consent a server may ignore offline_access (OpenID Connect Core 1.0 section 11)."""
        assert source_of(tmp_path, "oidc").authorization_params == (("prompt", "consent"),)

    def test_google(self, tmp_path: Path) -> None:
        source = source_of(tmp_path, "google")
        assert source.issuer == "https://accounts.google.com"
        assert source.authorization_params == (("access_type", "offline"), ("prompt", "consent"))
        assert source.client_secret is not None

    def test_entra(self, tmp_path: Path) -> None:
        source = source_of(tmp_path, "entra")
        assert source.issuer == "https://login.microsoftonline.com/abc-123/v2.0"
        assert source.redirect_uri == "http://localhost:6750/-/callback"
        assert source.client_auth is ClientAuth.NONE
        assert "interaction_required" in source.ended_errors

    def test_github(self, tmp_path: Path) -> None:
        source = source_of(tmp_path, "github")
        assert source.issuer is None
        assert source.authorization_endpoint == "https://github.com/login/oauth/authorize"
        assert source.token_endpoint == "https://github.com/login/oauth/access_token"
        assert source.device_authorization_endpoint == "https://github.com/login/device/code"
        assert source.ended_errors == ("bad_refresh_token",)
        assert source.client_auth is ClientAuth.POST

    def test_auth0(self, tmp_path: Path) -> None:
        source = source_of(tmp_path, "auth0")
        assert str(source.issuer).endswith(".auth0.com/")
        assert source.audience

    def test_databricks(self, tmp_path: Path) -> None:
        assert source_of(tmp_path, "databricks").issuer == "https://abc-123.cloud.databricks.com/oidc"


class TestText:
    def test_questions_are_what_is_still_to_be_replaced(self) -> None:
        assert list(list_questions(SAMPLE)) == [
            Question("issuer", "https://login.example.com", None),
            Question("client_id", "YOUR-CLIENT-ID", "YOUR-CLIENT-ID"),
            Question("upstream", "https://api.example.com/v1", None),
        ]
        (issuer, client) = list_questions(PRESETS["entra"].text)
        assert (issuer.whole, client.whole) == (False, True)
        assert issuer.placeholder == "YOUR-TENANT-ID"

    def test_an_example_host_is_replaced_with_all_that_is_after_it(self) -> None:
        assert next(list_questions(PRESETS["keycloak"].text)).whole

    def test_an_account_of_another_name(self, tmp_path: Path) -> None:
        text = name_account(PRESETS["google"].text, "a.b")
        (tmp_path / "a.b-client-secret").write_text("made-up\n")
        assert list(load_text(tmp_path, fill(text)).configuration.accounts) == ["a.b"]
        assert "Replace what begins" not in text

    def test_a_part_goes_wherever_its_placeholder_stands(self) -> None:
        text = replace_part(PRESETS["databricks"].text, "YOUR-WORKSPACE", "dbc-1")
        values = read_values(text)
        assert values["issuer"] == "https://dbc-1.cloud.databricks.com/oidc"
        assert values["upstream"] == "https://dbc-1.cloud.databricks.com"

    @pytest.mark.parametrize("part", ["", "a b", "a/b", 'a"', "https://a", "a\n"])
    def test_a_part_is_no_more_than_a_part(self, part: str) -> None:
        with pytest.raises(ValueError, match="write only what takes the place of YOUR-WORKSPACE"):
            replace_part(PRESETS["databricks"].text, "YOUR-WORKSPACE", part)

    def test_a_whole_address_tells_the_others(self) -> None:
        text = replace_value(PRESETS["databricks"].text, "issuer", "https://dbc-1.cloud.databricks.com/oidc")
        assert read_values(text)["upstream"] == "https://dbc-1.cloud.databricks.com"
        other = replace_value(PRESETS["databricks"].text, "issuer", "https://adb-1.azuredatabricks.net/oidc")
        assert [question.key for question in list_questions(other)] == ["client_id", "upstream"]

    @pytest.mark.parametrize("value", ['a"b', "a\\b", "a\nb", "a\x7fb", "é\U0001f600", "\\1", "#", "'"])
    def test_any_text_can_be_a_value(self, value: str) -> None:
        assert read_values(replace_value(SAMPLE, "client_id", value))["client_id"] == value

    def test_values_that_are_lists_remarks_or_not_there(self) -> None:
        text = replace_value(SAMPLE, "scopes", ["a", "b"])
        text = replace_value(text, "client_secret_file", "s")
        text = replace_value(text, "audience", "x")
        values = read_values(text)
        assert (values["scopes"], values["client_secret_file"], values["audience"]) == (["a", "b"], "s", "x")
        assert "client_secret_file" not in read_values(remove_value(text, "client_secret_file"))
        assert len(text.splitlines()) == len(SAMPLE.splitlines()) + 1
