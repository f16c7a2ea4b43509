"""The style sheet of the page, for light and dark schemes. Text on its ground has a contrast of at least 4.5 : 1."""

from __future__ import annotations

STYLE = """
:root {
  color-scheme: light dark;
  --font: system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif;
  --mono: ui-monospace, "SF Mono", "DejaVu Sans Mono", Menlo, Consolas, monospace;
  --ground: #ffffff; --raised: #f5f6f8; --ink: #1c2128; --soft: #545d68; --line: #d0d7de;
  --good: #116329; --bad: #a40e26; --open: #7a4e00;
  --c0: #0b62b0; --c1: #b3470a; --c2: #12754f; --c3: #94428a; --c4: #856404;
  --c5: #2c6f8a; --c6: #5a5a5a; --c7: #8a3c3c;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ground: #0f1318; --raised: #1a2029; --ink: #e4e8ee; --soft: #a3adb9; --line: #3a4350;
    --good: #6fd58b; --bad: #ff9a94; --open: #e8bd5c;
    --c0: #6cb6ff; --c1: #ffa266; --c2: #5fd3a0; --c3: #e39bd8; --c4: #e3c35a;
    --c5: #7fcfe8; --c6: #b9b9b9; --c7: #f0a0a0;
  }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink); font: 16px/1.5 var(--font); }
header, main, footer { max-width: 68rem; margin: 0 auto; padding: 0 1.25rem; }
header { padding-top: 2rem; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 .4rem; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2.4rem 0 .6rem; padding-bottom: .25rem; border-bottom: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.2rem 0 .2rem; }
p { margin: .4rem 0; max-width: 46rem; }
a { color: var(--c0); }
nav ul { display: flex; flex-wrap: wrap; gap: .2rem 1.1rem; margin: .8rem 0 0; padding: 0; list-style: none; }
.status { display: inline-block; padding: .1rem .7rem; border: 1.5px solid currentColor;
  border-radius: 1rem; font-weight: 600; }
.good { color: var(--good); } .bad { color: var(--bad); } .open { color: var(--open); }
.soft, caption, footer { color: var(--soft); font-size: .9rem; }
.scroll { overflow-x: auto; margin: .6rem 0; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
caption { text-align: left; padding-bottom: .3rem; }
th, td { padding: .3rem .8rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
th:first-child, td:first-child { padding-left: 0; }
thead th { border-bottom: 2px solid var(--line); font-weight: 600; }
tbody th { font-weight: 500; }
.n { text-align: right; white-space: nowrap; }
pre { background: var(--raised); padding: .9rem 1rem; border-radius: .4rem; overflow-x: auto;
  font: .82rem/1.5 var(--mono); }
code, .hash { font-family: var(--mono); font-size: .85em; overflow-wrap: anywhere; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1.2rem; margin: .6rem 0; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
figure { margin: 1rem 0; } figcaption { color: var(--soft); font-size: .9rem; }
svg { display: block; width: 100%; height: auto; color: var(--ink); }
svg text { fill: currentColor; }
.small { display: grid; grid-template-columns: repeat(auto-fill, minmax(15rem, 1fr)); gap: .6rem 1.4rem; }
.small figure { margin: 0; }
.bar { display: inline-block; width: 7rem; height: .7rem; background: var(--line); border-radius: .2rem;
  vertical-align: baseline; }
.bar span { display: block; height: 100%; background: var(--c0); border-radius: .2rem; min-width: 1px; }
.problem { background: var(--raised); border-radius: .4rem; padding: 1rem 1.2rem; overflow-x: auto; }
.problem table { border: 0; }
.problem th, .problem td {
  border: 0; padding: .25rem 1.2rem .25rem 0; font-weight: 400; vertical-align: baseline;
}
math { font-size: 1.12em; }
footer { padding-top: 2rem; padding-bottom: 2rem; }
@media print { .scroll { overflow: visible; } pre { white-space: pre-wrap; } nav { display: none; } }
"""
