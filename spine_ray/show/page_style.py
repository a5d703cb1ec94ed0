"""The look of the report page: one style sheet, light and dark, on screen and on paper."""

LIGHT = {
    "ground": "#f6f5f1", "card": "#fffffe", "ink": "#22262b", "soft": "#656c76", "line": "#e4e2db", "shade": "#f3f1ec",
    "accent": "#2f6f6b", "good": "#2c7a4b", "warn": "#9a5f0a", "bad": "#b03a3a",
    "t0": "#3d7ea6", "t1": "#c98a2b", "t2": "#9b4f78", "t3": "#4f8a5b", "t4": "#7a6bb5", "t5": "#8a6f5a",
}  # fmt: skip
"""Colours by the name of their CSS variable, each of them only once: so a figure's colours can be named again."""
DARK = {
    "ground": "#16191d", "card": "#1e2227", "ink": "#e4e6e8", "soft": "#98a0a9", "line": "#30363d", "shade": "#252a30",
    "accent": "#6fbdb4", "good": "#74c08f", "warn": "#dba657", "bad": "#e08383",
    "t0": "#71b1d8", "t1": "#e2b062", "t2": "#cf86ad", "t3": "#85c191", "t4": "#ab9ee2", "t5": "#bfa38d",
}  # fmt: skip
PAPER = {**LIGHT, "ground": "#ffffff", "card": "#ffffff", "ink": "#000000", "soft": "#555555", "shade": "#f6f6f6"}
TIER_COLOURS = 6
"""Tiers with a colour of their own; more share them in turn."""


def _variables(colours: dict[str, str]) -> str:
    return " ".join(f"--{name}: {colour};" for name, colour in colours.items())


STYLE = (
    f":root {{ color-scheme: light dark; {_variables(LIGHT)} }}\n"
    f"@media (prefers-color-scheme: dark) {{ :root {{ {_variables(DARK)} }} }}\n"
    f"@media print {{ :root {{ color-scheme: light; {_variables(PAPER)} }} }}\n"
    """
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--ground); color: var(--ink);
  font: 15px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif;
}
main { max-width: 1080px; margin: 0 auto; padding: 40px 24px 72px; }
header { margin-bottom: 24px; }
h1 { margin: 0; font-size: 28px; font-weight: 650; letter-spacing: -0.015em; overflow-wrap: anywhere; }
h2 { margin: 0 0 12px; font-size: 17px; font-weight: 620; letter-spacing: -0.005em; }
h3 { margin: 20px 0 6px; font-size: 14px; font-weight: 600; color: var(--soft); }
p { margin: 0 0 8px; }
.made, .hint { color: var(--soft); font-size: 13.5px; }
.hint { margin-top: 10px; max-width: 96ch; }
.facts { display: flex; flex-wrap: wrap; gap: 8px; margin: 14px 0 0; padding: 0; list-style: none; }
.facts li {
  padding: 3px 11px; border: 1px solid var(--line); border-radius: 999px; background: var(--card);
  font-size: 13px; overflow-wrap: anywhere;
}
.facts b { margin-right: 5px; color: var(--soft); font-weight: 500; }
section {
  margin-top: 18px; padding: 22px 24px; border: 1px solid var(--line); border-radius: 12px; background: var(--card);
}
.answer { border-left: 4px solid var(--accent); }
.answer p { margin: 6px 0 0; font-size: 15.5px; }
.answer p:first-child { margin: 0; font-size: 19px; font-weight: 560; line-height: 1.45; }
.scroll { overflow-x: auto; }
.scroll.tall { max-height: 460px; overflow-y: auto; }
.scroll.tall th { position: sticky; top: 0; background: var(--card); }
nav { display: flex; flex-wrap: wrap; gap: 2px 16px; margin: 14px 0 0; font-size: 13.5px; }
nav a { color: var(--accent); text-decoration: none; }
nav a:hover { text-decoration: underline; }
.pictures { display: grid; grid-template-columns: repeat(auto-fill, minmax(210px, 1fr)); gap: 14px; margin: 8px 0 0; }
.picture { display: flex; gap: 10px; font-size: 12.5px; line-height: 1.4; break-inside: avoid; }
.picture img {
  flex: none; width: 84px; height: 84px; object-fit: contain; border-radius: 6px; background: var(--shade);
}
.picture div { min-width: 0; overflow-wrap: anywhere; }
.picture p { margin: 0 0 2px; }
.picture small { display: block; color: var(--soft); }
.right { color: var(--good); } .wrong { color: var(--bad); }
table { width: 100%; border-collapse: collapse; font-size: 13.5px; font-variant-numeric: tabular-nums; }
th {
  padding: 6px 10px; border-bottom: 1px solid var(--line); color: var(--soft); font-weight: 500; text-align: left;
  white-space: nowrap;
}
td { padding: 6px 10px; border-bottom: 1px solid var(--line); vertical-align: baseline; }
tr:last-child td { border-bottom: 0; }
tbody tr:hover td { background: var(--shade); }
.n { text-align: right; white-space: nowrap; }
tr.first td { font-weight: 620; }
td small { display: block; color: var(--soft); font-weight: 400; font-size: 12px; overflow-wrap: anywhere; }
.tier { white-space: nowrap; }
tr:has(+ .noted) td { border-bottom: 0; padding-bottom: 2px; }
.noted td { padding-top: 0; color: var(--warn); font-size: 12.5px; }
.dot { display: inline-block; width: 10px; height: 10px; margin-right: 7px; border-radius: 50%; background: var(--c); }
.dot.hollow { border: 2px solid var(--soft); background: none; }
.dot.ring { border: 2px solid var(--ink); background: none; outline: 1px solid var(--card); outline-offset: -4px; }
.legend { display: flex; flex-wrap: wrap; gap: 4px 20px; margin: 8px 0 0; color: var(--soft); font-size: 13px; }
.t0 { --c: var(--t0); } .t1 { --c: var(--t1); } .t2 { --c: var(--t2); }
.t3 { --c: var(--t3); } .t4 { --c: var(--t4); } .t5 { --c: var(--t5); }
svg text { font-family: inherit; }
svg g[id*="-label-"] text { paint-order: stroke; stroke: var(--card); stroke-width: 3px; stroke-linejoin: round; }
svg .mark:hover { opacity: 0.65; }
figure { margin: 0; }
figcaption { margin: 8px 0 0; max-width: 96ch; color: var(--soft); font-size: 13.5px; }
.drawn { overflow-x: auto; }
.figure { display: block; width: 100%; max-width: var(--most); height: auto; margin: 0 auto; }
.range { position: relative; display: inline-block; width: 120px; height: 14px; vertical-align: middle; }
.range b { position: absolute; top: 6px; height: 2px; background: var(--c, var(--accent)); opacity: 0.55; }
.range u { position: absolute; top: 3px; width: 8px; height: 8px; margin-left: -4px; border-radius: 50%;
  background: var(--c, var(--accent)); }
.range.wide { width: 260px; }
.range.wide b { top: 3px; height: 8px; border-radius: 4px; }
.range.wide u { top: 0; width: 3px; height: 14px; margin-left: -1px; border-radius: 0; background: var(--ink); }
.share { display: inline-block; height: 7px; border-radius: 4px; background: var(--accent); vertical-align: middle; }
.gate { padding: 12px 0; border-bottom: 1px solid var(--line); }
.gate:first-of-type { padding-top: 0; }
.gate:last-child { padding-bottom: 0; border-bottom: 0; }
.verdict {
  margin-left: 8px; padding: 1px 9px; border: 1px solid currentColor; border-radius: 999px; color: var(--accent);
  font-size: 12.5px; font-weight: 600;
}
.verdict.climb, .verdict.again, .verdict.climb_frozen_first, .verdict.climb_frozen_only { color: var(--good); }
.verdict.stop, .finding { color: var(--warn); }
.failed { color: var(--bad); }
.found { display: grid; grid-template-columns: max-content 1fr; gap: 2px 16px; margin: 14px 0 0; font-size: 12.5px; }
.found dt { color: var(--soft); }
.found dd { margin: 0; overflow-wrap: anywhere; font-family: ui-monospace, "SF Mono", Menlo, Consolas, monospace; }
pre {
  margin: 8px 0 0; padding: 12px 14px; border-radius: 8px; background: var(--shade); white-space: pre-wrap;
  overflow-wrap: anywhere; font: 13px/1.5 ui-monospace, "SF Mono", Menlo, Consolas, monospace;
}
@media (max-width: 700px) {
  main { padding: 20px 12px 40px; }
  section { padding: 16px 14px; }
  h1 { font-size: 22px; }
  .answer p:first-child { font-size: 16.5px; }
  .figure { min-width: calc(0.72 * var(--most)); }
  th, td { padding: 5px 7px; }
  .pictures { grid-template-columns: repeat(2, 1fr); }
  .picture { flex-direction: column; gap: 4px; }
}
@media print {
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  @page { margin: 14mm; }
  body { font-size: 12px; }
  td small, .noted td, figcaption, .hint, .facts li { font-size: 9.5px; }
  main { max-width: none; padding: 0; }
  section { padding: 12px 0; border: 0; border-top: 1px solid var(--line); border-radius: 0; }
  .answer { padding-left: 14px; border-top: 0; border-left: 4px solid var(--accent); }
  nav { display: none; }
  .scroll, .scroll.tall, .drawn { overflow: visible; max-height: none; }
  .scroll.tall th { position: static; }
  table { font-size: 10.5px; }
  th, td { padding: 3px 5px; }
  tr, .gate, figure { break-inside: avoid; }
  h2, h3 { break-after: avoid; }
}
"""
)
