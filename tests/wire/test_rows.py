"""Every row of docs/http.md has a test on real sockets. Which, stands here.

A row is known by its section and its first cell; one of the answers by its codes.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

TESTS: Final = Path(__file__).parent.parent
DOCUMENT: Final = (TESTS.parent / "docs" / "http.md").read_text(encoding="utf-8")

COVERED: Final = {
    "To the request": {
        "version": "wire/test_corpora.py: a_request_that_two_could_read_in_two_ways_goes_nowhere;"
        " forward/test_gate.py: via_names_the_protocol_that_came_in",
        "target": "wire/test_corpora.py: a_target_goes_upstream_byte_for_byte, a_target_goes_after_the_base_path,"
        " an_absolute_target_of_ours_is_its_path, a_target_that_is_none_goes_nowhere",
        "`Host`": "wire/test_corpora.py: fields_go_upstream_as_they_are",
        "`access_token` in the query": "forward/test_gate.py: a_token_in_the_query_is_refused,"
        " a_token_in_the_query_where_the_route_allows_it",
        "what the route's [rules](configuration.md#rules) do not let pass":
            "forward/test_rules.py: what_is_refused_does_not_get_there_and_the_connection_goes_on, a_body_that_nobody_wanted",
        "the credential": "wire/test_corpora.py: fields_that_stay_here;"
        " forward/test_fields.py: exactly_one_credential_leaves_ours_and_last",
        "dropped": "wire/test_corpora.py: fields_that_stay_here, a_body_has_one_framing_and_it_is_ours",
        "`Forwarded`, `X-Forwarded-*`": "wire/test_corpora.py: fields_that_stay_here;"
        " forward/test_fields.py: what_an_upstream_hears_of_a_client",
        "of the route": "forward/test_fields.py: a_routes_fields_replace_the_clients_in_all_spellings",
        "added": "forward/test_gate.py: via_names_the_protocol_that_came_in",
        "`Max-Forwards`": "forward/test_gate.py: max_forwards_of_options_counts_down, max_forwards_that_is_used_up_ends_here",
        "`Cookie`": "wire/test_corpora.py: fields_go_upstream_as_they_are; forward/test_handler.py: a_route_without_cookies",
        "`traceparent`, `tracestate`, `X-Request-Id`": "forward/test_ids.py:"
        " what_the_client_says_of_a_trace_goes_upstream_as_it_is",
        "framing": "wire/test_corpora.py: a_body_has_one_framing_and_it_is_ours, a_request_may_come_in_any_pieces",
        "`Expect: 100-continue`": "forward/test_handler.py: a_client_that_asks_first_is_told_to_go_on;"
        " forward/test_expectation.py: a_client_that_waits_is_told_by_the_upstream",
        "refused": "wire/test_corpora.py: a_request_that_two_could_read_in_two_ways_goes_nowhere,"
        " a_body_that_two_could_read_in_two_ways_is_never_whole, fields_that_are_refused, a_target_that_is_none_goes_nowhere",
    },
    "To the response": {
        "dropped": "forward/test_handler.py: a_response_on_the_wire_byte_for_byte",
        "`Location`, `Content-Location`": "forward/test_handler.py: where_a_response_leads, a_redirect_is_relayed_and_not_followed",
        "`Set-Cookie`": "forward/test_handler.py: cookies_of_an_upstream_belong_to_its_route, a_route_without_cookies",
    },
    "Clients with keys": {
        "the request that goes on": "forward/test_client_keys.py: a_key_lets_in_and_goes_no_further,"
        " what_is_sent_again_has_no_key_either",
        '`use = "required"`, no key': "forward/test_client_keys.py: nobody_calls_without_a_key",
        "a key that is not known, or several": "forward/test_client_keys.py: nobody_calls_without_a_key,"
        " where_keys_are_optional_a_dummy_is_none",
        "a limited key, for something else": "forward/test_client_keys.py: a_limited_key_calls_what_it_is_for",
        "a key in the request target": "forward/test_client_keys.py: a_key_in_the_target_is_refused",
        "`WWW-Authenticate`": "forward/test_client_keys.py: the_answer_says_how, our_own_pages",
        "`livez`, `readyz`, `healthz`, and where logins come back to": "forward/test_client_keys.py: our_own_pages;"
        " control/test_login.py: where_clients_have_keys_a_person_shows_one_and_comes_back_without",
        "`Host`": "forward/test_client_keys.py: a_page_calls_with_a_key_of_its_own_and_not_with_the_browsers",
        "`Origin` and Fetch Metadata": "forward/test_client_keys.py:"
        " a_page_calls_with_a_key_of_its_own_and_not_with_the_browsers",
        "preflights": "forward/test_client_keys.py: preflights_of_any_origin_are_answered_where_the_call_needs_a_key,"
        " where_keys_are_optional_the_list_of_origins_decides",
        "the log": "cli/test_key.py: a_daemon_in_a_process_of_its_own",
    },
    "Pages of other origins": {
        "every answer to a call of theirs, problems included": "forward/test_cors.py:"
        " a_page_of_an_allowed_origin_reads_the_answer, problems_of_our_own_can_be_read",
        "a preflight: `OPTIONS` with `Access-Control-Request-Method`": "forward/test_cors.py: we_answer_preflights",
        "cookies and other credentials of the browser": "forward/test_cors.py: a_page_of_an_allowed_origin_reads_the_answer",
        "answers to all others": "forward/test_cors.py: a_page_of_any_other_makes_no_call",
        "under `/-/`": "forward/test_cors.py: our_own_pages_let_nobody_in",
    },
    "Pages of an upstream": {
        "an answer that a browser may show as a page or in a frame": "forward/test_sandbox.py:"
        " what_a_browser_may_show_is_in_a_sandbox, all_else_is_as_it_was, a_policy_of_the_upstream_stays_beside_ours",
        "a request for a service worker: `Service-Worker: script`": "forward/test_sandbox.py: no_worker_is_installed",
    },
    "How large and how slow a request may be": {
        "request target": "forward/test_gate.py: a_head_at_the_limits, a_head_over_the_limits",
        "one header field, all of them, their number": "forward/test_gate.py: a_head_at_the_limits, a_head_over_the_limits",
        "a head, from its first byte to its last": "forward/test_gate.py: a_head_that_drips_in_is_cut_off",
        "a pause in a body, while bearerd is ready to read": "forward/test_gate.py: a_body_that_stalls_is_cut_off,"
        " a_body_that_stalls_while_the_answer_comes_cuts_it_off, a_client_that_is_held_back_by_the_upstream_is_not_cut_off",
        "a connection without a request": "forward/test_gate.py: an_idle_connection_is_closed",
        "connections at once": "forward/test_gate.py: no_more_connections_than_allowed;"
        " test_daemon.py: few_descriptors_are_enough_and_never_run_out",
        "calls under way at the end": "forward/test_gate.py: the_drain_takes_as_long_as_it_may;"
        " forward/test_handler.py: an_answer_that_the_end_of_the_daemon_cuts_short",
        "a connection that has had no request, at the end": "forward/test_drain.py:"
        " one_that_never_has_a_request_is_not_waited_for, an_idle_connection_is_closed_though_calls_go_on",
    },
    "Replay after a 401": {
        "`100`": "forward/test_expectation.py: a_large_body_waits_for_the_upstream, a_body_that_is_gone_is_not_sent_again",
        "`401`, or another of `retry_statuses`": "forward/test_expectation.py: a_401_before_the_body_costs_no_body,"
        " a_second_401_is_passed_on_and_no_body_was_sent",
        "`417`": "forward/test_expectation.py: a_417_is_not_passed_on, a_417_to_a_body_that_went_is_passed_on",
        "any other final answer": "forward/test_expectation.py: another_refusal_is_passed_on_at_once",
        "nothing for a second": "forward/test_expectation.py:"
        " an_upstream_that_says_nothing_gets_the_body_after_a_second_and_is_not_asked_again",
    },
    "Connections to upstreams": {
        "addresses": "forward/test_dialing.py: the_first_address_that_answers_is_taken,"
        " a_family_that_is_a_black_hole_costs_a_quarter_of_a_second",
        "TLS": "forward/test_dialing.py: certificates_that_do_not_hold, old_versions_are_refused;"
        " forward/test_handler.py: an_upstream_that_cannot_be_trusted_gets_no_token",
        "proxy": "forward/test_handler.py: a_call_by_way_of_a_proxy, a_proxy_that_fails",
        "`upstream_connect`": "forward/test_handler.py: an_upstream_that_cannot_be_reached_in_time",
        "`upstream_idle`": "forward/test_upstream.py: idle_connections_are_closed_in_time",
        "`response_idle`": "forward/test_handler.py: an_upstream_that_falls_silent_before_its_answer,"
        " an_upstream_that_falls_silent_within_its_answer",
        "interim responses": "forward/test_upstream.py: interim_responses_without_end",
    },
    "Upgrades": {
        "the handshake": "forward/test_upgrades.py: the_handshake_on_the_wire_byte_for_byte, a_401_is_replayed_with_another_token",
        "any other protocol, such as `h2c`": "forward/test_handler.py: an_upgrade_is_not_passed_on_and_the_connection_goes_on",
        "`Upgrade: websocket` with a body": "forward/test_upgrades.py: a_handshake_with_a_body_is_refused",
        "an upstream that refuses": "forward/test_upgrades.py: a_refusal_is_relayed_at_once_and_the_connection_goes_on",
        "a 101 that was not asked for": "forward/test_upgrades.py: an_agreement_that_was_not_asked_for",
        "after the 101": "forward/test_upgrades.py: bytes_in_the_packet_of_the_answer_and_after_it,"
        " a_client_that_does_not_read_holds_the_upstream_back, an_upstream_that_does_not_read_holds_the_client_back",
        "one side has said everything": "forward/test_upgrades.py: a_client_that_has_said_everything_still_hears,"
        " an_upstream_that_has_said_everything_still_hears",
        "one side dies": "forward/test_upgrades.py: an_upstream_that_dies, a_client_that_dies",
        "idle": "forward/test_upgrades.py: limits_on_calls_are_none_on_tunnels",
        "the end of the daemon": "forward/test_upgrades.py: a_tunnel_ends_with_the_time_to_drain",
    },
    "Answers of bearerd's own": {
        "`bad_request`": "forward/test_gate.py: a_request_that_is_refused, a_host_that_is_none",
        "`bad_credential`": "forward/test_fields.py: a_credential_that_is_not_clearly_one_is_refused",
        "`refused_by_methods`, `refused_by_read_only`": "forward/test_rules.py: a_client_that_asks_first_is_refused_at_once,"
        " a_body_that_nobody_wanted",
        "`refused_by_deny`, `refused_by_allow`": "forward/test_rules.py: what_is_refused_does_not_get_there_and_the_connection_goes_on",
        "`ambiguous_path`": "forward/test_rules.py: what_is_refused_does_not_get_there_and_the_connection_goes_on",
        "`method_override`": "forward/test_rules.py: a_method_in_a_field",
        "`key_missing`, `key_refused`": "forward/test_client_keys.py: nobody_calls_without_a_key",
        "`key_limited`": "forward/test_client_keys.py: a_limited_key_calls_what_it_is_for",
        "`key_in_target`": "forward/test_client_keys.py: a_key_in_the_target_is_refused",
        "`peer_refused`": "forward/test_strangers.py: they_are_told_why_and_what_to_do",
        "`origin_refused`": "wire/test_corpora.py: fields_that_are_refused",
        "`worker_refused`": "forward/test_sandbox.py: no_worker_is_installed",
        "`form_refused`": "control/test_login.py: threat_17_a_token_of_nobody_or_of_another_browser",
        "`token_in_query`": "forward/test_gate.py: a_token_in_the_query_is_refused",
        "`no_route`, `no_such_page`": "forward/test_handler.py: no_route_takes_the_path, control_pages_are_never_forwarded",
        "`method_refused`": "forward/test_gate.py: a_request_that_is_refused",
        "`head_timeout`, `body_timeout`": "forward/test_gate.py: a_head_that_drips_in_is_cut_off, a_body_that_stalls_is_cut_off",
        "`target_too_long`": "forward/test_gate.py: a_head_over_the_limits",
        "`wrong_authority`": "forward/test_gate.py: a_request_that_is_refused, a_host_that_is_none",
        "`head_too_large`": "forward/test_gate.py: a_head_over_the_limits",
        "`internal_error`": "forward/test_handler.py: a_defect_shows_nothing_but_its_code",
        "`upstream_broken`": "forward/test_handler.py: an_upstream_that_breaks, problems_of_our_own",
        "`token_unavailable`": "forward/test_handler.py: no_token_to_be_had",
        "`login_required`": "test_end_to_end.py: a_login_that_ended_says_so_and_asks_the_server_no_more",
        "`audit_unavailable`": "forward/test_audited.py:"
        " while_it_cannot_be_written_calls_go_on_unless_it_is_required",
        "`too_many_connections`": "forward/test_gate.py: no_more_connections_than_allowed",
        "`upstream_timeout`": "forward/test_handler.py: an_upstream_that_cannot_be_reached_in_time,"
        " an_upstream_that_falls_silent_before_its_answer",
        "`loop`": "forward/test_gate.py: max_forwards_that_is_used_up_ends_here;"
        " test_daemon.py: a_call_that_leads_back_here_is_a_loop",
    },
}  # fmt: skip


def rows() -> Iterator[tuple[str, str]]:
    for section in DOCUMENT.split("\n## ")[1:]:
        title, _, text = section.partition("\n")
        for line in text.splitlines():
            cells = [cell.strip() for cell in line.strip("|").split(" | ")]
            if line.startswith("| ") and not set(line) <= set("|- ") and cells[0] != "status" and cells[0]:
                yield title, cells[1] if cells[0].isdigit() else cells[0]


def named(tests: str) -> Iterator[tuple[Path, str]]:
    """The files and functions of an entry above."""
    for part in tests.split("; "):
        file, _, names = part.partition(": ")
        for name in names.split(","):
            yield TESTS / file, f"test_{name.strip()}"


def test_every_row_has_its_tests() -> None:
    """A new row of the document wants a test on real sockets, and an entry above."""
    written = set(rows())
    covered = {(title, row) for title, entries in COVERED.items() for row in entries}
    assert not written - covered, "rows without an entry"
    assert not covered - written, "entries of rows that are gone"


@pytest.mark.parametrize("title", COVERED)
def test_tests_that_are_named_exist(title: str) -> None:
    for row, tests in COVERED[title].items():
        for file, name in named(tests):
            found = re.search(rf"\bdef {name}\(", file.read_text(encoding="utf-8"))
            assert found, f"{row}: {file.name} has no {name}"
