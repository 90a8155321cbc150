"""How our pages look: one sheet for all of them, light and dark, from a phone up."""

from typing import Final

STYLE: Final = """
:root {
  color-scheme: light dark;
  --ground: #f4f6f7; --card: #ffffff; --text: #1a2126; --soft: #55626c; --line: #dbe1e5;
  --accent: #0b6b6b; --on-accent: #ffffff; --accent-hover: #085555; --tint: #e6f1f0;
  --good: #1b6e3c; --good-tint: #e5f3ea; --warn: #7a4f00; --warn-tint: #fbf1dc;
  --bad: #a3261d; --bad-tint: #fbe9e7;
  --shadow: 0 1px 2px rgb(16 30 40 / 6%), 0 4px 16px rgb(16 30 40 / 5%);
}
@media (prefers-color-scheme: dark) {
  :root {
    --ground: #0f1417; --card: #181f24; --text: #e4eaee; --soft: #9dabb5; --line: #2c363d;
    --accent: #62cdc3; --on-accent: #05201e; --accent-hover: #84dcd4; --tint: #15302f;
    --good: #74cf95; --good-tint: #16301f; --warn: #e6bd62; --warn-tint: #33290f;
    --bad: #ff9d92; --bad-tint: #3a1c19; --shadow: none;
  }
}
*, ::before, ::after { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; text-size-adjust: 100%; }
body {
  margin: 0; min-height: 100vh; display: flex; flex-direction: column; background: var(--ground); color: var(--text);
  font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "Noto Sans", "DejaVu Sans", sans-serif;
}
header, main, footer { width: 100%; max-width: 46rem; margin: 0 auto; padding: 0 1.25rem; }
header { padding-top: 1.5rem; }
main { flex: 1; padding-top: 1.5rem; padding-bottom: 2rem; }
footer { padding-bottom: 1.5rem; color: var(--soft); font-size: .875rem; }
.brand { display: inline-flex; align-items: center; gap: .5rem; color: var(--text); font-weight: 650; text-decoration: none; }
.brand svg { width: 1.5rem; height: 1.5rem; color: var(--accent); }
h1 { margin: 0 0 .75rem; font-size: 1.6rem; line-height: 1.25; letter-spacing: -.01em; }
h2 { margin: 2.25rem 0 .75rem; font-size: 1.05rem; }
h3 { margin: 0; font-size: 1.15rem; line-height: 1.3; }
p { margin: 0 0 1rem; }
a { color: var(--accent); text-underline-offset: .15em; }
:focus-visible { outline: 3px solid var(--accent); outline-offset: 3px; border-radius: .3rem; }
code {
  padding: .1em .35em; border-radius: .3rem; background: var(--ground); border: 1px solid var(--line);
  font: .875em/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; overflow-wrap: anywhere;
  -webkit-box-decoration-break: clone; box-decoration-break: clone;
}
.soft { color: var(--soft); }
.small { font-size: .875rem; }
.hidden-text {
  position: absolute; width: 1px; height: 1px; margin: -1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap;
}
.card {
  margin: 0 0 1rem; padding: 1.25rem 1.4rem; border: 1px solid var(--line); border-radius: .9rem;
  background: var(--card); box-shadow: var(--shadow);
}
.message { max-width: 36rem; margin: 5vh auto 0; padding: 2rem 2.1rem; overflow-wrap: anywhere; }
.message > :last-child { margin-bottom: 0; }
.mark {
  display: grid; place-items: center; width: 3rem; height: 3rem; margin-bottom: 1.1rem; border-radius: 50%;
  color: var(--accent); background: var(--tint);
}
.mark svg { width: 1.6rem; height: 1.6rem; }
.mark.good { color: var(--good); background: var(--good-tint); }
.mark.bad { color: var(--bad); background: var(--bad-tint); }
.actions { display: flex; flex-wrap: wrap; align-items: center; gap: .75rem; margin-top: 1.25rem; }
.actions form { margin: 0; }
.message .actions { margin: 1.5rem 0; }
.message .actions:last-child { margin-bottom: 0; }
.button {
  display: inline-block; padding: .6rem 1.15rem; border: 1px solid transparent; border-radius: .6rem; cursor: pointer;
  background: var(--accent); color: var(--on-accent); font: inherit; font-weight: 600; line-height: 1.4; text-decoration: none;
}
.button:hover { background: var(--accent-hover); }
.button.quiet { background: transparent; border-color: var(--line); color: var(--text); font-weight: 500; }
.button.quiet:hover { border-color: var(--soft); background: var(--ground); }
.login label { display: block; margin: 1.25rem 0 .35rem; font-weight: 600; }
.login input {
  width: 100%; padding: .6rem .8rem; border: 1px solid var(--line); border-radius: .6rem; background: var(--ground);
  color: var(--text); font: inherit;
}
.top { display: flex; flex-wrap: wrap; align-items: center; justify-content: space-between; gap: .4rem .75rem; }
.who { margin: .1rem 0 0; color: var(--soft); overflow-wrap: anywhere; }
.badge {
  display: inline-flex; align-items: center; gap: .45rem; padding: .15rem .7rem; border-radius: 1rem;
  font-size: .875rem; font-weight: 600; color: var(--soft); background: var(--ground);
}
.badge::before { content: ""; width: .55rem; height: .55rem; border-radius: 50%; background: currentColor; }
.badge[data-state=active] { color: var(--good); background: var(--good-tint); }
.badge[data-state=login_pending], .badge[data-state=trouble] { color: var(--warn); background: var(--warn-tint); }
.badge[data-state=login_required] { color: var(--bad); background: var(--bad-tint); }
dl { display: flex; flex-wrap: wrap; gap: .6rem 2.5rem; margin: 1rem 0 0; }
dt { color: var(--soft); font-size: .875rem; }
dd { margin: 0; font-variant-numeric: tabular-nums; }
progress { display: block; width: 100%; height: .3rem; margin-top: .9rem; border: 0; border-radius: 1rem; overflow: hidden; appearance: none; background: var(--line); }
progress::-webkit-progress-bar { background: var(--line); }
progress::-webkit-progress-value { background: var(--accent); }
progress::-moz-progress-bar { background: var(--accent); }
.trouble { margin-top: 1rem; padding: .75rem .95rem; border-radius: .6rem; color: var(--text); background: var(--warn-tint); overflow-wrap: anywhere; }
.trouble.bad { background: var(--bad-tint); }
.trouble p { margin: 0; }
.trouble code { background: var(--card); }
.plain { list-style: none; }
.plain li { padding: .55rem 0; border-top: 1px solid var(--line); overflow-wrap: anywhere; }
.plain li:first-child { padding-top: 0; border-top: 0; }
.plain li:last-child { padding-bottom: 0; }
[hidden] { display: none !important; }
@media (max-width: 30rem) {
  header, main, footer { padding-left: 1rem; padding-right: 1rem; }
  .message { margin-top: 0; padding: 1.5rem 1.35rem; }
  .message .button { display: block; width: 100%; text-align: center; }
}
@media (forced-colors: active) { .badge, .button { border: 1px solid; } }
"""
