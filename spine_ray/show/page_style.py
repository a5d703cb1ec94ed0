"""The look of the report page: one style sheet, light and dark, on screen and on paper."""

STYLE = """
:root {
  color-scheme: light dark;
  --ground: #f6f5f1; --card: #ffffff; --ink: #22262b; --soft: #69707a; --line: #e4e2db; --shade: #f3f1ec;
  --accent: #2f6f6b; --good: #2c7a4b; --warn: #a2660d; --bad: #b03a3a;
  --t0: #3d7ea6; --t1: #c98a2b; --t2: #9b4f78; --t3: #4f8a5b; --t4: #7a6bb5; --t5: #8a6f5a;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ground: #16191d; --card: #1e2227; --ink: #e4e6e8; --soft: #98a0a9; --line: #30363d; --shade: #252a30;
    --accent: #6fbdb4; --good: #74c08f; --warn: #dba657; --bad: #e08383;
    --t0: #71b1d8; --t1: #e2b062; --t2: #cf86ad; --t3: #85c191; --t4: #ab9ee2; --t5: #bfa38d;
  }
}
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
.answer p { margin: 0; font-size: 18px; line-height: 1.5; }
.scroll { overflow-x: auto; }
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
.note { min-width: 120px; color: var(--warn); font-weight: 400; }
.dot { display: inline-block; width: 10px; height: 10px; margin-right: 7px; border-radius: 50%; background: var(--c); }
.dot.hollow { border: 2px solid var(--soft); background: none; }
.dot.ring { border: 2px solid var(--ink); background: none; outline: 1px solid var(--card); outline-offset: -4px; }
.legend { display: flex; flex-wrap: wrap; gap: 4px 20px; margin: 8px 0 0; color: var(--soft); font-size: 13px; }
.t0 { --c: var(--t0); } .t1 { --c: var(--t1); } .t2 { --c: var(--t2); }
.t3 { --c: var(--t3); } .t4 { --c: var(--t4); } .t5 { --c: var(--t5); }
svg text { fill: var(--soft); font-size: 12px; font-family: inherit; }
svg .label { fill: var(--ink); font-size: 11.5px; stroke: var(--card); stroke-width: 3px; paint-order: stroke; }
svg .grid { stroke: var(--line); stroke-width: 1; }
svg .base { stroke: var(--soft); stroke-width: 1; }
svg .bar { stroke: var(--c); stroke-width: 2; opacity: 0.45; }
svg .point { fill: var(--c); stroke: var(--c); stroke-width: 2; }
svg .point.hollow { fill: var(--card); }
svg .ring { fill: none; stroke: var(--ink); stroke-width: 1.6; }
.figure { display: block; width: 100%; height: auto; }
.whisker line { stroke: var(--c); stroke-width: 2; opacity: 0.5; }
.whisker circle { fill: var(--c); }
.share { display: inline-block; height: 7px; border-radius: 4px; background: var(--accent); vertical-align: middle; }
.gate { padding: 12px 0; border-bottom: 1px solid var(--line); }
.gate:first-of-type { padding-top: 0; }
.gate:last-child { padding-bottom: 0; border-bottom: 0; }
.verdict {
  margin-left: 8px; padding: 1px 9px; border: 1px solid currentColor; border-radius: 999px; color: var(--accent);
  font-size: 12.5px; font-weight: 600;
}
.verdict.climb, .verdict.again, .verdict.climb_frozen_first, .verdict.climb_frozen_only { color: var(--good); }
.verdict.stop { color: var(--warn); }
.failed { color: var(--bad); }
pre {
  margin: 8px 0 0; padding: 12px 14px; border-radius: 8px; background: var(--shade); white-space: pre-wrap;
  overflow-wrap: anywhere; font: 13px/1.5 ui-monospace, "SF Mono", Menlo, Consolas, monospace;
}
@media print {
  :root {
    color-scheme: light;
    --ground: #fff; --card: #fff; --ink: #000; --soft: #555; --line: #ddd; --shade: #f6f6f6;
    --accent: #2f6f6b; --good: #2c7a4b; --warn: #a2660d; --bad: #b03a3a;
    --t0: #3d7ea6; --t1: #c98a2b; --t2: #9b4f78; --t3: #4f8a5b; --t4: #7a6bb5; --t5: #8a6f5a;
  }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  main { max-width: none; padding: 0; }
  section { padding: 12px 0; border: 0; border-top: 1px solid var(--line); border-radius: 0; }
  .answer { padding-left: 14px; border-top: 0; border-left: 4px solid var(--accent); }
  .scroll { overflow: visible; }
  table { font-size: 10.5px; }
  th, td { padding: 3px 5px; }
  tr, .gate, figure { break-inside: avoid; }
}
"""
