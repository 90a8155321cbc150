"""What another configuration changes: a table of accounts, and what holds of any two configurations."""

from collections.abc import Mapping
from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bearerd.core.accounts import Account, CommandSource, FileSource, Grant, OAuthSource, Source, StaticSource
from bearerd.core.configuration import Configuration, Keys, Limits, Listen, Logging, Store
from bearerd.core.redaction import Secret
from bearerd.core.reloading import Changes, Fate, compare, decide_fate, list_fixed
from bearerd.core.targets import Route, Tls, Way, parse_route, sort_routes
from bearerd.core.vault import build_identity

LOGIN = OAuthSource(
    Grant.AUTHORIZATION_CODE, "app", client_secret=Secret("s"), issuer="https://id.example", scopes=("a",)
)
TOKEN = replace(LOGIN, grant=Grant.REFRESH_TOKEN, refresh_token=Secret("r"))
SERVICE = replace(LOGIN, grant=Grant.CLIENT_CREDENTIALS)
STATIC = StaticSource(Secret("t"))
OLD = Configuration(accounts={}, routes=())


class TestAccounts:
    @pytest.mark.parametrize("source", [LOGIN, TOKEN, SERVICE, STATIC, FileSource("f")], ids=repr)
    def test_what_is_new_is_added_and_what_is_the_same_is_kept(self, source: Source) -> None:
        account = Account("work", source)
        assert decide_fate(None, account) is Fate.ADDED
        assert decide_fate(account, replace(account)) is Fate.KEPT

    @pytest.mark.parametrize(
        ("old", "new", "fate"),
        [
            # A login: whatever does not make it another credential leaves it in the same hand.
            (LOGIN, replace(LOGIN, client_secret=Secret("rotated")), Fate.RENEWED),
            (LOGIN, replace(LOGIN, scopes=("a", "b")), Fate.RENEWED),
            (LOGIN, replace(LOGIN, scopes=()), Fate.RENEWED),
            (LOGIN, replace(LOGIN, audience="api"), Fate.RENEWED),
            (LOGIN, replace(LOGIN, ended_errors=("gone",)), Fate.RENEWED),
            (LOGIN, replace(LOGIN, login=False), Fate.RENEWED),
            (LOGIN, replace(LOGIN, redirect_uri="http://127.0.0.1:1/x"), Fate.RENEWED),
            (LOGIN, replace(LOGIN, revocation_endpoint="https://id.example/r"), Fate.RENEWED),
            (LOGIN, replace(LOGIN, way=Way(Tls("ca.pem"))), Fate.RENEWED),
            (LOGIN, replace(LOGIN, client_id="other"), Fate.REPLACED),
            (LOGIN, replace(LOGIN, issuer="https://other.example"), Fate.REPLACED),
            (LOGIN, replace(LOGIN, resource="https://api.example"), Fate.REPLACED),
            (LOGIN, replace(LOGIN, issuer=None, token_endpoint="https://id.example/t"), Fate.REPLACED),
            (LOGIN, TOKEN, Fate.REPLACED),
            (LOGIN, SERVICE, Fate.REPLACED),
            (LOGIN, STATIC, Fate.REPLACED),
            # A login that began with a refresh token of the configuration.
            (TOKEN, replace(TOKEN, client_secret=Secret("rotated")), Fate.RENEWED),
            (TOKEN, LOGIN, Fate.RENEWED),
            (TOKEN, replace(TOKEN, refresh_token=Secret("another")), Fate.REPLACED),
            (TOKEN, SERVICE, Fate.REPLACED),
            # Nothing is spent: a new secret is no reason to be without a token, other words are.
            (SERVICE, replace(SERVICE, client_secret=Secret("rotated")), Fate.RENEWED),
            (SERVICE, replace(SERVICE, scopes=("b",)), Fate.REPLACED),
            (SERVICE, replace(SERVICE, audience="api"), Fate.REPLACED),
            (SERVICE, replace(SERVICE, client_id="other"), Fate.REPLACED),
            (SERVICE, LOGIN, Fate.REPLACED),
            (SERVICE, STATIC, Fate.REPLACED),
            # What comes from this machine is asked for anew.
            (STATIC, StaticSource(Secret("other")), Fate.REPLACED),
            (STATIC, FileSource("f"), Fate.REPLACED),
            (FileSource("f"), FileSource("g"), Fate.REPLACED),
            (CommandSource(("a",), 1.0), CommandSource(("a",), 2.0), Fate.REPLACED),
            (STATIC, LOGIN, Fate.REPLACED),
        ],
    )
    def test_what_has_changed(self, old: Source, new: Source, fate: Fate) -> None:
        assert decide_fate(Account("work", old), Account("work", new)) is fate

    @given(
        *(
            st.builds(
                OAuthSource,
                st.sampled_from(Grant),
                st.sampled_from(("app", "other")),
                client_secret=st.sampled_from((None, Secret("s"), Secret("t"))),
                issuer=st.sampled_from(("https://id.example", "https://other.example")),
                scopes=st.sampled_from(((), ("a",))),
                resource=st.sampled_from((None, "https://api.example")),
                refresh_token=st.sampled_from((None, Secret("r"), Secret("q"))),
                login=st.booleans(),
            )
            for _ in range(2)
        )
    )
    def test_a_manager_goes_on_only_with_the_same_credential(
        self, one: OAuthSource, other: OAuthSource
    ) -> None:
        fate = decide_fate(Account("work", one), Account("work", other))
        assert (fate is Fate.KEPT) == (one == other)
        if fate is Fate.RENEWED:
            assert build_identity("work", one) == build_identity("work", other)
            assert one.spends == other.spends
            assert not one.spends or other.refresh_token in {None, one.refresh_token}


class TestFixed:
    @pytest.mark.parametrize(
        ("listen", "fixed"),
        [
            (Listen(hosts=("127.0.0.1",)), ["hosts"]),
            (Listen(port=1), ["port"]),
            (Listen(remote=True), ["remote"]),
            (Listen(peer_uid="any"), ["peer_uid"]),
            (Listen(socket="/s", socket_mode=0o666), ["socket", "socket_mode"]),
            (Listen(socket_uids=frozenset({1})), ["socket_uids"]),
            (Listen(allowed_hosts=frozenset({"x"})), []),
            (Listen(public_url="https://x"), []),
            (Listen(allowed_origins=frozenset({"https://x"})), []),
        ],
        ids=repr,
    )
    def test_where_it_listens(self, listen: Listen, fixed: list[str]) -> None:
        assert list_fixed(OLD, replace(OLD, listen=listen)) == tuple(("listen", key) for key in fixed)

    @pytest.mark.parametrize("field", [field.name for field in fields(Store)])
    def test_whatever_says_where_tokens_are(self, field: str) -> None:
        values: Mapping[str, object] = {"key_secret": Secret("k")}
        store = replace(Store(), **{field: values.get(field, "other")})  # type: ignore[arg-type]  # by name
        assert list_fixed(OLD, replace(OLD, store=store)) == (("store", field),)

    @pytest.mark.parametrize(
        "log", [Logging(traces=True), Logging(traces_endpoint="http://127.0.0.1:4318")], ids=repr
    )
    def test_where_traces_go(self, log: Logging) -> None:
        (name,) = list_fixed(OLD, replace(OLD, log=log))
        assert name[1].startswith("traces")

    def test_nothing_else_is(self) -> None:
        other = Configuration(
            accounts={"a": Account("a", STATIC)},
            routes=(parse_route("/", "http://x", "a"),),
            keys=Keys(use="required"),
            limits=Limits(connections=1),
            log=Logging(level="error"),
            on_login_needed=("x",),
        )
        assert list_fixed(OLD, other) == ()


def configuration(accounts: Mapping[str, str], routes: Mapping[str, str]) -> Configuration:
    return Configuration(
        accounts={name: Account(name, StaticSource(Secret(token))) for name, token in accounts.items()},
        routes=sort_routes(build(prefix, host) for prefix, host in routes.items()),
    )


def build(prefix: str, host: str) -> Route:
    return parse_route(prefix, f"http://{host}", "a")


class TestChanges:
    def test_a_line_for_each_that_is_other_than_it_was(self) -> None:
        old = configuration({"a": "1", "b": "1", "c": "1"}, {"/": "x", "/b/": "x", "/c/": "x"})
        new = configuration({"a": "1", "c": "2", "d": "1"}, {"/": "x", "/c/": "y", "/d/": "x"})
        assert compare(old, new) == Changes(
            added=(("accounts", "d"), ("routes", "/d")),
            changed=(("accounts", "c"), ("routes", "/c")),
            removed=(("accounts", "b"), ("routes", "/b")),
        )

    def test_settings_that_stand_alone_by_their_names_in_the_file(self) -> None:
        new = replace(
            OLD,
            listen=Listen(public_url="https://x"),
            keys=Keys(use="optional", file="f"),
            limits=Limits(header_read_s=1.0, replay_body=1),
            log=Logging(level="debug", access=False),
            on_login_needed=("notify",),
        )
        assert compare(OLD, new) == Changes(
            changed=(
                ("listen", "public_url"),
                ("keys", "use"),
                ("keys", "file"),
                ("limits", "replay_body"),
                ("limits", "header_read"),
                ("log", "level"),
                ("log", "access"),
                ("hooks", "on_login_needed"),
            )
        )

    names = st.dictionaries(st.sampled_from("abcd"), st.sampled_from("xy"))

    @given(names, names, names, names)
    def test_whatever_the_two_are(
        self, one: dict[str, str], two: dict[str, str], three: dict[str, str], four: dict[str, str]
    ) -> None:
        """The same says nothing; backwards, what was added is removed; each name is said once, and none that stays."""
        old = configuration(one, {f"/{name}/": host for name, host in two.items()})
        new = configuration(three, {f"/{name}/": host for name, host in four.items()})
        assert compare(old, old) == Changes()
        there, back = compare(old, new), compare(new, old)
        assert (there.added, there.changed, there.removed) == (back.removed, back.changed, back.added)
        said = [*there.added, *there.changed, *there.removed]
        assert len(said) == len(set(said))
        stays = {("accounts", name) for name in one.keys() & three.keys() if one[name] == three[name]}
        stays |= {("routes", f"/{name}") for name in two.keys() & four.keys() if two[name] == four[name]}
        assert stays.isdisjoint(said)
