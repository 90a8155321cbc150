"""What can be done to a daemon on localhost, what stands against it, and how each defence is switched off to see its tests fail."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

TESTS: Final = Path(__file__).parent.parent
CODE: Final = TESTS.parent / "proxy" / "bearerd"

THREATS: Final = {
    1: "a name of somebody else's is made to lead here (DNS rebinding)",
    2: "a web page calls localhost",
    3: "an upstream gives every web page leave to read its answers",
    4: "a request target leads the token to another host",
    5: "a path is spelt so that rules on paths do not know it",
    6: "metadata or a server names an address that does something else than open a page",
    7: "somebody's login is ended by somebody else, or with another server",
    8: "a client's fields take the place of ours, or take ours away",
    9: "secrets in logs, errors, pages, environments",
    10: "a redirect carries a secret on",
    11: "one request is read as two, or two as one",
    12: "an upgrade opens a way past the rules",
    13: "cookies of one go to another",
    14: "other users of the machine",
    15: "after a login one ends elsewhere",
    16: "another program waits where a login comes back to",
    17: "our own pages are reached through the proxy, or by other pages; calls go round in a circle",
    18: "too much, too slow, without end",
    19: "a page that comes through bearerd has bearerd's origin",
}


@dataclass(frozen=True, slots=True)
class Defence:
    """`text` of `file` in the package, which is there once, becomes `off`; then every test that `tests` names fails.

    `tests` is written as ``file: name, name; file: name``, without the ``test_`` of the names. `root` says that another user
    is needed to see it.
    """

    threat: int
    file: str
    text: str
    off: str
    tests: str
    root: bool = False

    @property
    def source(self) -> Path:
        return CODE / self.file

    def named(self) -> Iterator[tuple[Path, str]]:
        """The files and functions of its tests."""
        for part in self.tests.split("; "):
            file, _, names = part.partition(": ")
            for name in names.split(", "):
                yield TESTS / file, f"test_{name}"

    def __str__(self) -> str:
        return f"threat {self.threat}: {self.file}: {self.text.strip()[:60]}"


CHROMIUM: Final = "threats/test_in_chromium.py"

DEFENCES: Final = (
    Defence(
        1,
        "core/guard.py",
        "if len(hosts) == 1 and hosts[0].lower() in guard.authorities:",
        "if len(hosts) == 1:",
        "core/test_guard.py: not_ours;"
        " forward/test_upgrades.py: a_host_that_is_not_ours_gets_no_tunnel;"
        f" {CHROMIUM}: pages_of_others_spend_no_token",
    ),
    Defence(
        1,
        "core/guard.py",
        "guard.any_localhost and _LOCALHOST.fullmatch",
        "guard.any_localhost or _LOCALHOST.fullmatch",
        "forward/test_local.py: by_tcp_the_port_is_ours_all_the_same",
    ),
    Defence(
        1,
        "core/guard.py",
        "if len(hosts) == 1 and hosts[0].lower() in guard.authorities:",
        "if hosts and hosts[0].lower() in guard.authorities:",
        "core/test_guard.py: there_must_be_exactly_one",
    ),
    Defence(
        1,
        "control/callback_listener.py",
        "problem = refuse(self._guard, head) or self._refuse(head)",
        "problem = self._refuse(head)",
        "control/test_login.py: another_port_answers_to_nothing_else",
    ),
    Defence(
        2,
        "core/guard.py",
        "return None if allowed or origins <= guard.origins else _cross_site()",
        "return None",
        "core/test_guard.py: any_other_is_refused, one_good_origin_does_not_excuse_another, the_whole_table;"
        f" forward/test_cors.py: a_page_of_any_other_makes_no_call; {CHROMIUM}: pages_of_others_spend_no_token",
    ),
    Defence(
        2,
        "core/guard.py",
        'if _OURS_OR_NOBODYS.issuperset(head.every(b"sec-fetch-site")) or _is_own_navigation(guard, head):',
        "if True:",
        "core/test_guard.py: another_site, the_whole_table; wire/test_corpora.py: fields_that_are_refused;"
        f" {CHROMIUM}: pages_of_others_spend_no_token",
    ),
    Defence(
        2,
        "core/guard.py",
        'return head.method == "GET" and fetch == _DOCUMENT and is_own(guard, head.target)',
        'return head.method == "GET" and fetch == _DOCUMENT',
        f"core/test_guard.py: another_site, the_whole_table; {CHROMIUM}: pages_of_others_spend_no_token",
    ),
    Defence(
        2,
        "core/guard.py",
        "allowed = foreign_origin(guard, head) is not None and not is_own(guard, head.target)",
        "allowed = foreign_origin(guard, head) is not None",
        "forward/test_cors.py: our_own_pages_let_nobody_in; core/test_guard.py: the_whole_table",
    ),
    Defence(
        2,
        "core/keyed_guard.py",
        "explicit = any(not each.basic for each in shown)",
        "explicit = bool(shown)",
        "core/test_keyed_guard.py: the_table;"
        " forward/test_client_keys.py: a_page_calls_with_a_key_of_its_own_and_not_with_the_browsers;"
        " test_client_keys_in_chromium.py: a_page_calls_with_its_own_key_and_never_with_the_persons",
    ),
    Defence(
        2,
        "core/keyed_guard.py",
        "problem = refuse(policy.guard, head, vouched=vouched) or _judge_key(policy, key, head)",
        "problem = _judge_key(policy, key, head)",
        "core/test_keyed_guard.py: the_table, the_other_rules_hold_whatever_the_key",
    ),
    Defence(
        3,
        "core/headers.py",
        "return name in DROPPED or name.startswith(_CORS) or",
        "return name in DROPPED or",
        "core/test_headers.py: dropped; forward/test_handler.py: a_response_on_the_wire_byte_for_byte;"
        " forward/test_cors.py: a_page_of_an_allowed_origin_reads_the_answer",
    ),
    Defence(
        3,
        "core/heads.py",
        "(?!(?i:(?:%b):|access-control-))",
        "(?!(?i:(?:%b):))",
        "core/test_heads.py: what_is_special_is_left_to_the_parser",
    ),
    Defence(
        3,
        "core/cors.py",
        "    if origin is None:\n        return (_VARY,)",
        '    if origin is None:\n        origin = b"*"',
        "core/test_cors.py: what_an_answer_grants; forward/test_cors.py: a_page_of_any_other_makes_no_call",
    ),
    Defence(
        4,
        "core/guard.py",
        'if head.target.startswith(b"/") or (head.target == b"*" and head.method == "OPTIONS"):',
        "if head.target:",
        "core/test_guard.py: a_target_that_is_no_path; wire/test_corpora.py: a_target_that_is_none_goes_nowhere",
    ),
    Defence(
        4,
        "core/guard.py",
        'if target.startswith(origin + b"/"):',
        "if target.startswith(origin):",
        "core/test_guard.py: any_other_target_stays_as_it_is",
    ),
    Defence(
        4,
        "core/targets.py",
        "if target.startswith(prefix) and target[len(prefix) : len(prefix) + 1] in _ENDS:",
        "if target.startswith(prefix):",
        "core/test_targets.py: on_segment_borders_of_the_raw_path, whatever_the_target",
    ),
    Defence(
        4,
        "core/targets.py",
        'return rest if rest.startswith(b"/") else b"/" + rest',
        "return rest",
        "core/test_targets.py: the_prefix_alone, whatever_the_target",
    ),
    Defence(
        5,
        "core/rules.py",
        "if len(known) < len(parts) or not _is_normal(_SPLIT.split(text)[1:]):",
        "if len(known) < len(parts):",
        "core/test_rules.py: no_spelling_gets_round_a_deny;"
        " forward/test_rules.py: what_is_refused_does_not_get_there_and_the_connection_goes_on",
    ),
    Defence(
        5,
        "core/rules.py",
        'return (text,) if len(parts) == 1 else (text, text.replace(_ENCODED_SLASH, "/"))',
        "return (text,)",
        "core/test_rules.py: an_encoded_slash_must_be_allowed_both_ways, no_spelling_gets_round_a_deny",
    ),
    Defence(
        5,
        "core/rules.py",
        "return text if plain and not _AMBIGUOUS.search(text) else None",
        "return text",
        "core/test_rules.py: no_spelling_gets_round_a_deny",
    ),
    Defence(
        5,
        "core/rules.py",
        "if rules.on_methods and overrides_method(target, headers):",
        "if False:",
        "core/test_rules.py: a_method_is_not_overridden, a_method_is_not_overridden_by_a_query;"
        " forward/test_rules.py: a_method_in_a_field",
    ),
    Defence(
        6,
        "core/metadata.py",
        "if not _ADDRESS.fullmatch(url):",
        "if False:",
        "core/test_metadata.py: threat_6_nothing_a_shell_acts_on_is_opened",
    ),
    Defence(
        6,
        "core/metadata.py",
        'if origin.scheme != "https" and not origin.loopback:',
        "if False:",
        "core/test_metadata.py: an_unfit_endpoint, threat_6_every_endpoint_is_checked",
    ),
    Defence(
        6,
        "core/metadata.py",
        'return check_browser_url(url) if name == "authorization_endpoint" else check_endpoint(url)',
        "return url",
        "oauth/test_server.py: threat_6_hostile_metadata_leads_nowhere, threat_6_no_request_leaves_for_hostile_metadata",
    ),
    Defence(
        6,
        "core/opening.py",
        "    check_browser_url(url)\n    names",
        "    names",
        "core/test_opening.py: threat_6_what_is_not_opened",
    ),
    Defence(
        6,
        "core/targets.py",
        'if "@" in parts.netloc:',
        "if False:",
        "core/test_targets.py: refused",
    ),
    Defence(
        7,
        "tokens/logins.py",
        "if not is_bound(transaction, binding_of(transaction)):",
        "if False:",
        "tokens/test_logins.py: threat_7_another_browser_s_state_is_refused_and_its_owner_goes_on;"
        " control/test_login.py: threat_7_a_cookie_of_another_login_does_not_fit",
    ),
    Defence(
        7,
        "control/login.py",
        "if transaction is not None and self._begun.get(transaction.account) != _cookie_name(",
        "if False and self._begun.get(transaction.account) != _cookie_name(",
        "control/test_login.py: threat_7_a_terminal_s_state_in_a_browser",
    ),
    Defence(
        7,
        "tokens/logins.py",
        "        self._drop(account)\n        try:\n            code = check_callback",
        "        try:\n            code = check_callback",
        "tokens/test_logins.py: threat_7_a_state_is_good_once",
    ),
    Defence(
        7,
        "core/authorization.py",
        "if not has_state(transaction, callback.state):",
        "if False:",
        "core/test_authorization.py: threat_7_another_login",
    ),
    Defence(
        7,
        "core/authorization.py",
        "if callback.iss is not None and callback.iss != server.issuer and server.issuer is not None:",
        "if False:",
        "core/test_authorization.py: threat_7_another_server; tokens/test_logins.py:"
        " threat_7_another_issuer_s_callback_ends_the_login;"
        " control/test_login.py: threat_7_a_server_that_is_not_the_one_asked",
    ),
    Defence(
        7,
        "core/authorization.py",
        "if callback.iss is None and server.iss_required:",
        "if False:",
        "core/test_authorization.py: threat_7_a_server_that_always_names_itself;"
        " tokens/test_logins.py: threat_7_a_server_that_names_itself_always_does",
    ),
    Defence(
        7,
        "core/authorization.py",
        "    if not server.pkce:",
        "    if False:",
        "core/test_authorization.py: a_server_with_plain_pkce_alone_is_refused",
    ),
    Defence(
        7,
        "core/id_tokens.py",
        'if nonce is not None and claims.get("nonce") != nonce:',
        "if False:",
        "core/test_id_tokens.py: threat_7_of_another_login; oauth/test_server.py: threat_7_one_that_is_not_of_this_login",
    ),
    Defence(
        7,
        "core/id_tokens.py",
        'if issuer is not None and claims.get("iss") != issuer:',
        "if False:",
        "core/test_id_tokens.py: threat_7_of_another_issuer",
    ),
    Defence(
        8,
        "core/field_rules.py",
        'plain = name.replace(b"_", b"-")',
        "plain = name",
        "forward/test_fields.py: exactly_one_credential_leaves_ours_and_last",
    ),
    Defence(
        8,
        "core/field_rules.py",
        "return FieldRules(credential, stays | {name}, families, added, forwarded, own)",
        "return FieldRules(credential, stays - {name}, families, added, forwarded, own)",
        "core/test_headers.py: the_clients_authorization_is_replaced, whatever_the_client_sends;"
        " forward/test_gate.py: authorization_given_twice_is_dropped_twice",
    ),
    Defence(
        8,
        "core/headers.py",
        "        if lower in dropped or rules.drops(lower):\n",
        "        if rules.drops(lower):\n",
        "core/test_headers.py: what_connection_names_is_dropped; wire/test_corpora.py: fields_that_stay_here",
    ),
    Defence(
        8,
        "core/headers.py",
        "if upgrade is None and self._is_plain(fields):",
        "if upgrade is None:",
        "core/test_headers.py: what_is_written_by_template_is_the_same",
    ),
    Defence(
        9,
        "core/redaction.py",
        "    def __repr__(self) -> str:\n        return MASK",
        "    def __repr__(self) -> str:\n        return self._value",
        "core/test_redaction.py: it_shows_a_mask",
    ),
    Defence(
        9,
        "core/redaction.py",
        "    if is_secret(key):\n",
        "    if False:\n",
        "core/test_redaction.py: a_secret_key_hides_any_value; test_logs.py: no_secret_is_shown_at_any_depth",
    ),
    Defence(
        9,
        "core/lines.py",
        "    if secret:\n",
        "    if False:\n",
        "core/test_lines.py: whatever_an_event_has_is_one_line_of_ascii_and_masked_as_values_are;"
        " test_logs.py: no_secret_is_shown_at_any_depth",
    ),
    Defence(
        9,
        "core/redaction.py",
        'if _PLAIN.fullmatch(text) and "eyJ" not in text:',
        "if _PLAIN.fullmatch(text):",
        "core/test_lines.py: a_secret_in_a_path_is_masked; test_logs.py: a_jwt_anywhere_is_masked",
    ),
    Defence(
        9,
        "core/spans.py",
        '"url.path": redact_text(path_of(head.target).decode("latin-1")),',
        '"url.path": head.target.decode("latin-1"),',
        "test_traces.py: one_trace_shows_call_401_refresh_and_replay_in_order, a_secret_in_a_path_is_in_no_span",
    ),
    Defence(
        9,
        "telemetry.py",
        "            if not origin.loopback:\n",
        "            if False:\n",
        "test_traces.py: no_variable_alone_sends_them_to_another_machine",
    ),
    Defence(
        9,
        "telemetry.py",
        "    session.trust_env = False\n",
        "",
        "test_traces.py: neither_a_proxy_nor_a_password_of_the_environment_is_used",
    ),
    Defence(
        10,
        "telemetry.py",
        "            if answer.is_redirect:\n",
        "            if False:\n",
        "test_traces.py: a_collector_that_fails_harms_no_call",
    ),
    Defence(
        9,
        "core/redaction.py",
        "if not any(trace in lower for trace in _TRACES):",
        "if True:",
        "core/test_redaction.py: masked; test_logs.py: a_jwt_anywhere_is_masked",
    ),
    Defence(
        9,
        "privacy.py",
        "return _frames(type(exc), exc.__traceback__)",
        "return [str(exc), *_frames(type(exc), exc.__traceback__)]",
        "test_logs.py: frames_say_where_and_not_what",
    ),
    Defence(
        9,
        "privacy.py",
        "    return _forbid_cores()\n",
        "    return None\n",
        "test_privacy.py: a_daemon_that_crashes_leaves_no_core, a_command_that_crashes_leaves_no_core",
    ),
    Defence(
        9,
        "privacy.py",
        "ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)",
        "ctypes.CDLL(None)",
        "test_privacy.py: nobody_else_of_this_user_looks_into_a_daemon",
        root=True,
    ),
    Defence(
        9,
        "privacy.py",
        "    sys.excepthook = _tell\n",
        "    sys.excepthook = sys.__excepthook__\n",
        "test_privacy.py: an_exception_that_nobody_expected_is_shown_by_its_place, a_defect_of_a_command_shows_no_text",
    ),
    Defence(
        9,
        "privacy.py",
        "for name, text in environ.items() if not _is_secret(name.upper())}",
        "for name, text in environ.items()}",
        "test_privacy.py: no_variable_of_a_secret_goes_to_a_program;"
        " test_hooks.py: it_gets_no_secret_and_may_be_bearerd;"
        " cli/test_exec.py: a_command_gets_no_secret_and_may_leave_a_core",
    ),
    Defence(
        9,
        "logs.py",
        '    if "exc_info" in event:\n',
        "    if False:\n",
        "test_logs.py: an_exception_beside_an_event_is_shown_by_its_place",
    ),
    Defence(
        9,
        "logs.py",
        '_without_values(message) if record.name == "asyncio" else message',
        "message",
        "test_logs.py: what_asyncio_says_in_its_debug_mode_has_no_value",
    ),
    Defence(
        9,
        "core/redaction.py",
        "        case BaseException():  # what it says may hold anything\n            return type(value).__qualname__\n",
        "",
        "core/test_redaction.py: at_any_depth; test_logs.py: no_event_shows_a_secret_wherever_it_is",
    ),
    Defence(
        9,
        "forward/upstream.py",
        "head: bytes = field(repr=False)",
        "head: bytes",
        "core/test_types.py: no_text_that_may_be_secret_is_in_a_repr",
    ),
    Defence(
        9,
        "core/grants.py",
        "            text = text.replace(form, MASK)\n",
        "            pass\n",
        "core/test_types.py: what_was_sent_is_not_quoted_by_a_peer_s_error",
    ),
    Defence(
        9,
        "core/problems.py",
        '        ("Referrer-Policy", "no-referrer"),\n',
        "",
        "control/test_fields_of_replies.py: every_path_with_every_method, calls_that_are_refused_on_the_way",
    ),
    Defence(
        9,
        "control/login.py",
        "            forget_addresses()\n",
        "            pass\n",
        "test_memory_after_logout.py: no_object_has_the_token_after_a_logout",
    ),
    Defence(
        9,
        "core/keyed_guard.py",
        "    if has_key(head.target):\n        return _IN_TARGET\n",
        "",
        "core/test_keyed_guard.py: a_key_in_the_target_is_refused_whoever_sends_it;"
        " forward/test_client_keys.py: a_key_in_the_target_is_refused",
    ),
    Defence(
        9,
        "core/client_keys.py",
        "            if has_key(value):\n                continue\n",
        "",
        "core/test_client_keys.py: a_key_stays_here_wherever_it_is",
    ),
    Defence(
        9,
        "control/answers.py",
        '    ("Cache-Control", "no-store"),\n',
        '    ("Cache-Control", "private"),\n',
        "control/test_login.py: fields_of_every_page",
    ),
    Defence(
        9,
        "core/pages.py",
        'referrer = "same-origin" if page.form else "no-referrer"',
        'referrer = "unsafe-url"',
        "control/test_login.py: fields_of_every_page",
    ),
    Defence(
        9,
        "privacy.py",
        "for name, text in environ.items() if not name.upper().startswith(_PREFIX)}",
        "for name, text in environ.items()}",
        "sources/test_command.py: nothing_of_ours_is_in_its_environment;"
        " cli/test_login.py: a_browser_is_opened_on_an_address_that_is_listened_for",
    ),
    Defence(
        10,
        "oauth/exchange.py",
        "allow_redirects=False",
        "allow_redirects=True",
        "oauth/test_server.py: threat_10_a_redirect_is_not_followed; oauth/test_endpoint.py:"
        " a_redirect_carries_nothing_anywhere, a_redirected_metadata_request_stays_where_it_is",
    ),
    Defence(
        10,
        "core/rewrites.py",
        "return value if way is None else way + rest",
        "return way + rest if way else path + rest",
        "core/test_rewrites.py: no_upstream_leads_to_our_own_pages",
    ),
    Defence(
        11,
        "core/guard.py",
        "if codings and (head.version < (1, 1) or not single):",
        "if False:",
        "core/test_guard.py: refused; wire/test_corpora.py: a_request_that_two_could_read_in_two_ways_goes_nowhere",
    ),
    Defence(
        11,
        "core/guard.py",
        "elif codings and lengths is not None:",
        "elif False:",
        "core/test_guard.py: refused",
    ),
    Defence(
        11,
        "gate.py",
        "if self._offers and body.is_eof() and self._has_more(data, body, new=message is not None):",
        "if False:",
        "forward/test_gate.py: what_follows_an_upgrade_that_is_not_made_is_not_misread",
    ),
    Defence(
        11,
        "core/heads.py",
        r"(?: %b)?\r\n(?:[!#$",
        r"(?: %b)?\r\n(?:[ \t!#$",
        "core/test_heads.py: a_bad_head_is_never_complete;"
        " forward/test_upstream.py: a_bad_head_is_an_error_and_ends_the_connection",
    ),
    Defence(
        12,
        "core/guard.py",
        "return None if allowed or origins <= guard.origins else _cross_site()",
        "return None",
        "core/test_guard.py: a_websocket_handshake_is_judged_too;"
        " forward/test_upgrades.py: a_page_of_another_origin_gets_no_tunnel, a_real_client_of_another_origin",
    ),
    Defence(
        12,
        "core/upgrades.py",
        "for protocol in _protocols(head) if protocol.lower() in allowed]",
        "for protocol in _protocols(head)]",
        "core/test_upgrades.py: only_what_the_route_lets_pass; forward/test_handler.py: an_upgrade_is_not_passed_on_and_the_connection_goes_on",
    ),
    Defence(
        12,
        "core/upgrades.py",
        'return said[0] if said[0].lower() in asked.lower().split(b", ") else None',
        "return said[0]",
        "forward/test_upgrades.py: an_agreement_that_was_not_asked_for",
    ),
    Defence(
        13,
        "oauth/exchange.py",
        "cookie_jar=aiohttp.DummyCookieJar(),",
        "cookie_jar=aiohttp.CookieJar(unsafe=True),",
        "oauth/test_endpoint.py: each_request_has_a_connection_of_its_own_and_no_cookies",
    ),
    Defence(
        13,
        "core/headers.py",
        "return value if len(kept) == len(pairs) else",
        "return value if True else",
        "core/test_headers.py: our_own_cookies_stay_here; control/test_login.py: our_cookies_never_go_there",
    ),
    Defence(
        13,
        "core/rewrites.py",
        'if not route.cookies or pair.lstrip(b" \\t=").startswith(OWN_COOKIES):',
        "if not route.cookies:",
        "core/test_rewrites.py: a_cookie_of_ours_is_not_the_upstreams_to_set",
    ),
    Defence(
        13,
        "core/rewrites.py",
        "                kept.append(_map_path(route, attribute))",
        "                kept.append(attribute)",
        "core/test_rewrites.py: paths_of_cookies; forward/test_handler.py: cookies_of_an_upstream_belong_to_its_route",
    ),
    Defence(
        3,
        "core/keyed_guard.py",
        "return not is_own(policy.guard, head.target) and preflight",
        "return preflight",
        "core/test_keyed_guard.py: what_is_not_answered_here_needs_a_key",
    ),
    Defence(
        14,
        "core/client_keys.py",
        "        if compare_digest(key.digest, digest):\n",
        "        if True:\n",
        "core/test_client_keys.py: each_is_found_and_nothing_else_is; core/test_keyed_guard.py: the_table;"
        " forward/test_client_keys.py: nobody_calls_without_a_key",
    ),
    Defence(
        14,
        "core/keyed_guard.py",
        "return None if is_open(policy.guard, head) else _NO_PAGES",
        "return None",
        "core/test_keyed_guard.py: our_own_pages_are_for_keys_without_limits;"
        " forward/test_client_keys.py: a_limited_key_calls_what_it_is_for",
    ),
    Defence(
        14,
        "stores/client_keys.py",
        "        if found != self._seen:\n",
        "        if self._seen is None:\n",
        "stores/test_client_keys.py: it_has_what_is_there_now;"
        " forward/test_client_keys.py: a_key_holds_from_the_next_call_on_and_so_does_its_end",
    ),
    Defence(
        14,
        "settings/keys.py",
        "        if not listen.remote:\n",
        "        if False:\n",
        "test_settings.py: only_loopback_is_listened_on_by_itself",
    ),
    Defence(
        14,
        "settings/keys.py",
        'if table.use in {"off", "optional"} and _remote_hosts(listen):',
        "if False:",
        "test_settings.py: other_machines_need_keys",
    ),
    Defence(
        14,
        "activation.py",
        'if settled.remote_hosts and not (listen.remote and configuration.keys.use == "required"):',
        "if False:",
        "test_activation.py: an_address_for_other_machines",
    ),
    Defence(
        14,
        "core/keyed_guard.py",
        "if not policy.guard.keyed or is_open(policy.guard, head) or _asks_first(policy, head):",
        "if True:",
        "core/test_keyed_guard.py: the_table; forward/test_client_keys.py: nobody_calls_without_a_key,"
        " a_tunnel_needs_a_key_too_and_does_not_pass_it_on",
    ),
    Defence(
        14,
        "core/keyed_guard.py",
        "return _refuse_limited(policy, key, head) if key.limited else None",
        "return None",
        "core/test_keyed_guard.py: routes_and_accounts, methods;"
        " forward/test_client_keys.py: a_limited_key_calls_what_it_is_for",
    ),
    Defence(
        14,
        "stores/client_keys.py",
        "if found.st_mode & 0o022:",
        "if False:",
        "stores/test_client_keys.py: one_that_others_can_write_lets_nobody_in",
    ),
    Defence(
        14,
        "local_socket.py",
        "umask = os.umask(0o177)",
        "umask = os.umask(0)",
        "test_local_socket.py: it_is_never_more_open_than_it_ends",
    ),
    Defence(
        14,
        "local_socket.py",
        "            self._path.chmod(self._mode)\n",
        "",
        "test_local_socket.py: the_mode_is_what_was_asked_for_whatever_the_umask",
    ),
    Defence(
        14,
        "gate.py",
        "            if client.user not in callers.users:\n",
        "            if False:\n",
        "forward/test_strangers.py: they_are_told_why_and_what_to_do, the_pages_are_not_for_them_either;"
        " forward/test_local.py: threat_14_who_is_not_in_the_list_is_refused_before_a_word",
        root=True,
    ),
    Defence(
        14,
        "peers.py",
        "found.user if found.inode and found.state in _THEIRS else GONE",
        "found.user",
        "test_peers.py: what_is_made_of_what_is_found, one_that_has_closed_is_nobodys",
        root=True,
    ),
    Defence(
        14,
        "peers.py",
        "TCP_INFO, 1)[0] not in _OURS:",
        "TCP_INFO, 1)[0] in ():",
        "test_peers.py: ours_is_looked_at_last",
    ),
    Defence(
        14,
        "local_socket.py",
        "        if not stat.S_ISSOCK(found.st_mode):\n",
        "        if False:\n",
        "test_local_socket.py: what_is_no_socket_is_left_alone, a_link_is_not_followed",
    ),
    Defence(
        14,
        "local_socket.py",
        "if weakness := find_weakness(folder, own_home()):",
        "if weakness := None:",
        "test_local_socket.py: a_folder_of_theirs_is_not_used, nor_one_that_a_link_of_theirs_leads_to",
        root=True,
    ),
    Defence(
        14,
        "way.py",
        "            folder.chmod(0o700)  # the umask",
        "            folder.chmod(0o777)  # the umask",
        "test_way.py: by_themselves, to_a_key, to_bodies",
    ),
    Defence(
        14,
        "stores/vault.py",
        "            if found.st_uid != os.geteuid():\n",
        "            if False:\n",
        "stores/test_vault.py: another_user_s_folder_and_file_are_refused",
        root=True,
    ),
    Defence(
        14,
        "stores/vault.py",
        "os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC",
        "os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC",
        "stores/test_vault.py: a_folder_that_is_a_link_is_refused",
    ),
    Defence(
        14,
        "stores/vault.py",
        "_OPEN: Final = os.O_NOFOLLOW | os.O_CLOEXEC",
        "_OPEN: Final = os.O_CLOEXEC",
        "stores/test_vault.py: a_link_is_not_followed, a_link_planted_for_the_next_save_is_not_written_through",
    ),
    Defence(
        14,
        "stores/vault.py",
        "            os.fchmod(file, 0o600)",
        "            pass",
        "stores/test_vault.py: modes_that_were_loosened_are_tightened",
    ),
    Defence(
        14,
        "control/socket.py",
        "if len(self._talks) >= CONNECTIONS or not may_talk(peer):",
        "if len(self._talks) >= CONNECTIONS:",
        "control/test_socket.py: another_user_who_gets_there_is_cut_off_before_a_word",
        root=True,
    ),
    Defence(
        14,
        "control/socket.py",
        "        unready.chmod(0o600)\n",
        "",
        "control/test_socket.py: folder_and_socket_are_ours_alone_whatever_the_umask",
    ),
    Defence(
        14,
        "control/rendezvous.py",
        "        if found.st_uid != os.geteuid():\n",
        "        if False:\n",
        "control/test_socket.py: one_that_another_user_made_first_is_refused",
        root=True,
    ),
    Defence(
        15,
        "core/authorization.py",
        'r"/(?!/)[\\x21\\x23-\\x5b\\x5d-\\x7e]*"',
        'r"/[\\x21-\\x7e]*"',
        "core/test_authorization.py: threat_15_nobody_is_sent_elsewhere;"
        " control/test_login.py: threat_15_only_local_paths_are_returned_to",
    ),
    Defence(
        16,
        "listening.py",
        "sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)",
        "sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)",
        "control/test_login.py: threat_16_a_port_that_is_ours_is_nobody_else_s",
    ),
    Defence(
        16,
        "control/relays.py",
        "                await listener.start()\n",
        "",
        "control/test_login.py: threat_16_a_port_that_is_taken",
    ),
    Defence(
        16,
        "alone.py",
        "            await listener.start()\n",
        "",
        "cli/test_login.py: a_port_that_is_taken_opens_no_browser",
    ),
    Defence(
        16,
        "core/redirects.py",
        'hosts = ("127.0.0.1", "::1") if origin.host == "localhost" else (origin.host,)',
        "hosts = (origin.host,)",
        "core/test_redirects.py: threat_16_on_another_port_by_literal_addresses",
    ),
    Defence(
        17,
        "core/guard.py",
        "return in_control(target) or (bool(guard.callbacks) and path_of(target) in guard.callbacks)",
        "return bool(guard.callbacks) and path_of(target) in guard.callbacks",
        "forward/test_handler.py: control_pages_are_never_forwarded",
    ),
    Defence(
        17,
        "core/guard.py",
        "return in_control(target) or (bool(guard.callbacks) and path_of(target) in guard.callbacks)",
        "return in_control(target)",
        "control/test_login.py: threat_17_a_callback_of_ours_is_never_forwarded",
    ),
    Defence(
        17,
        "core/guard.py",
        'if any(guard.pseudonym in via for via in head.every(b"via")):',
        "if False:",
        "core/test_guard.py: our_pseudonym; test_daemon.py: a_call_that_leads_back_here_is_a_loop",
    ),
    Defence(
        17,
        "control/login.py",
        "if not is_same_origin(self._guard, head):",
        "if False:",
        "control/test_login.py: threat_17_another_site_s_page",
    ),
    Defence(
        17,
        "control/login.py",
        'if not is_token(self._key, cookie(head.headers, CSRF_COOKIE), form.get("csrf")):',
        "if False:",
        "control/test_login.py: threat_17_a_token_of_nobody_or_of_another_browser",
    ),
    Defence(
        17,
        "core/csrf.py",
        "    return hmac.compare_digest(",
        "    return True or hmac.compare_digest(",
        "core/test_csrf.py: and_with_nothing_else",
    ),
    Defence(
        18,
        "core/guard.py",
        "or (HEAD_TOO_LARGE if head.size > HEAD_LIMIT else None)",
        "",
        "core/test_guard.py: fields_that_are_too_large_together",
    ),
    Defence(
        18,
        "gate.py",
        "if self._size > HEAD_LIMIT + TARGET_LIMIT:",
        "if False:",
        "forward/test_gate.py: a_head_that_never_ends_is_not_kept",
    ),
    Defence(
        18,
        "gate.py",
        "            self._refuse(HEAD_TIMEOUT)",
        "            pass",
        "forward/test_gate.py: a_head_that_drips_in_is_cut_off",
    ),
    Defence(
        18,
        "gate.py",
        "            self._give_up()",
        "            pass",
        "forward/test_gate.py: a_body_that_stalls_is_cut_off, a_body_that_never_begins_is_cut_off",
    ),
    Defence(
        18,
        "gate.py",
        "if self.served < self.most:",
        "if True:",
        "forward/test_gate.py: no_more_connections_than_allowed",
    ),
    Defence(
        18,
        "gate.py",
        "if len(self._refusals) > REFUSALS:",
        "if False:",
        "forward/test_gate.py: a_flood_of_connections_holds_nothing",
    ),
    Defence(
        18,
        "oauth/exchange.py",
        "if len(body) > REPLY_LIMIT:",
        "if False:",
        "oauth/test_endpoint.py: a_huge_reply_is_cut_and_takes_no_memory",
    ),
    Defence(
        18,
        "forward/reply.py",
        "    return not request.protocol.writing_paused\n",
        "    return True\n",
        "forward/test_handler.py: a_client_that_does_not_read_holds_the_upstream_back_and_loses_nothing",
    ),
    Defence(
        19,
        "forward/lanes.py",
        "() if route.browser_app else SANDBOX",
        "()",
        "forward/test_sandbox.py: what_a_browser_may_show_is_in_a_sandbox, a_policy_of_the_upstream_stays_beside_ours;"
        f" {CHROMIUM}: a_page_of_an_upstream_is_nobody_here",
    ),
    Defence(
        19,
        "forward/direct.py",
        "(_UNUSUAL.isdisjoint(places) and not may_become_page(head))",
        "_UNUSUAL.isdisjoint(places)",
        "core/test_sandbox.py: what_needs_a_second_look_never_takes_the_short_way;"
        " forward/test_sandbox.py: however_it_is_asked_for",
    ),
    Defence(
        19,
        "core/sandbox.py",
        "return WORKER in head.names.places",
        "return False",
        "core/test_sandbox.py: who_asks_for_a_worker; forward/test_sandbox.py: no_worker_is_installed",
    ),
    Defence(
        19,
        "core/pages.py",
        '        ("X-Frame-Options", "DENY"),\n',
        "",
        "forward/test_sandbox.py: nothing_of_ours_is_shown_in_a_frame",
    ),
    Defence(
        19,
        "core/problems.py",
        '        ("X-Frame-Options", "DENY"),\n',
        "",
        "forward/test_sandbox.py: nothing_of_ours_is_shown_in_a_frame",
    ),
)
