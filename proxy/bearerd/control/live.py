"""What keeps the status page true while it is open. Without it the page says the same, as of when it was asked for."""

from typing import Final

# It writes text and attributes only, never HTML. Times left are counted from when they were told, by the browser's
# steady clock: its wall clock may not be the daemon's.
SCRIPT: Final = """
"use strict";
(() => {
  const POLL = 2000;
  const one = (root, name) => root.querySelector(`[data-field="${name}"]`);
  const cards = new Map([...document.querySelectorAll("[data-account]")].map((card) => [card.dataset.account, card]));
  const said = document.getElementById("said");
  const lost = document.getElementById("lost");
  let timer;

  const duration = (seconds) => {
    const s = Math.max(0, Math.floor(seconds));
    if (s < 60) return `${s} s`;
    if (s < 3600) return `${Math.floor(s / 60)} min ${s % 60} s`;
    if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor(s / 60) % 60} min`;
    return `${Math.floor(s / 86400)} d ${Math.floor(s / 3600) % 24} h`;
  };
  const sentence = (text) => text && `${text[0].toUpperCase()}${text.slice(1)}.`;
  const local = (instant) => {
    const date = new Date(instant.epoch * 1000);
    const sameDay = date.toDateString() === new Date().toDateString();
    return sameDay ? date.toLocaleTimeString() : date.toLocaleString();
  };
  const put = (node, text) => { if (node.textContent !== text) node.textContent = text; };
  const texts = (card) => JSON.parse(card.dataset.texts);
  const time = (node, instant, text) => {
    node.dateTime = instant ? instant.rfc3339 : "";
    put(node, text);
  };

  const tick = () => {
    for (const card of cards.values()) {
      if (!card.until) continue;
      const left = (card.until - performance.now()) / 1000;
      put(one(card, "left"), left > 0 ? duration(left) : "expired");
      one(card, "progress").value = Math.max(0, left);
    }
  };

  const show = (card, account) => {
    const label = account.state + (account.problem && account.state === "active" ? "+" : "");
    const badge = one(card, "badge");
    const text = texts(card)[account.state] || account.state;
    if (card.label !== undefined && card.label !== label) put(said, `${account.name}: ${text}`);
    card.label = label;
    put(badge, text);
    badge.dataset.state = account.problem && account.state !== "login_required" ? "trouble" : account.state;
    put(one(card, "who"), account.subject || "");
    one(card, "who").hidden = !account.subject;
    card.until = account.seconds_left === null ? null : performance.now() + account.seconds_left * 1000;
    one(card, "facts").hidden = account.seconds_left === null && account.last_refresh === null;
    one(card, "expiry").hidden = account.seconds_left === null;
    if (account.expires) one(card, "until").textContent = local(account.expires);
    const bar = one(card, "progress");
    bar.hidden = account.seconds_left === null || account.last_refresh === null;
    if (!bar.hidden) bar.max = Math.max(1, account.expires.epoch - account.last_refresh.epoch);
    one(card, "refreshed").hidden = account.last_refresh === null;
    if (account.last_refresh) time(one(card, "refresh"), account.last_refresh, local(account.last_refresh));
    one(card, "trouble").hidden = account.problem === null;
    one(card, "trouble").classList.toggle("bad", account.state === "login_required");
    put(one(card, "problem"), sentence(account.problem || ""));
    one(card, "itself").hidden = account.state === "login_required" || account.state === "login_pending";
    one(card, "elsewhere").hidden = account.state !== "login_required" || account.cure !== null;
    one(card, "cure").hidden = account.cure === null;
    put(one(card, "command"), account.cure || "");
    const login = one(card, "login");
    if (login) {
      login.hidden = account.login_url === null;
      const quiet = account.state === "active" || account.state === "waiting";
      put(one(card, "again"), quiet ? "Log in again" : "Log in");
      login.classList.toggle("quiet", quiet);
      one(card, "logout").hidden = !account.can_log_out;
    }
  };

  const poll = async () => {
    clearTimeout(timer);
    try {
      const reply = await fetch("/-/status", { cache: "no-store", credentials: "omit", signal: AbortSignal.timeout(5000) });
      const status = await reply.json();
      const names = status.accounts.map((account) => account.name);
      if (names.length !== cards.size || names.some((name) => !cards.has(name))) { location.reload(); return; }
      status.accounts.forEach((account) => show(cards.get(account.name), account));
      lost.hidden = true;
      tick();
    } catch {
      lost.hidden = false;
    }
    if (!document.hidden) timer = setTimeout(poll, POLL);
  };

  document.addEventListener("visibilitychange", () => { if (!document.hidden) poll(); });
  setInterval(tick, 1000);
  poll();
})();
"""
