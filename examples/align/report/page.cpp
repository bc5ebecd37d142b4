// See page.hpp.
#include "report/page.hpp"

#include "report/chart.hpp"

namespace align {
namespace {

constexpr std::string_view style = R"css(
:root{color-scheme:light dark;--paper:#fff;--panel:#f6f7f9;--ink:#1b1f24;--soft:#5b6570;--line:#dde1e6;
--good:#0b6e4f;--good-paper:#e3f5ec;--bad:#9b1c1c;--bad-paper:#fdeaea;
--blue:#1f6fb2;--orange:#c2571a;--violet:#6a4fb3;--grey:#6b7683}
@media (prefers-color-scheme:dark){:root{--paper:#14171a;--panel:#1c2126;--ink:#e6e9ec;--soft:#9aa5b1;
--line:#333b43;--good:#7fdcb5;--good-paper:#12322a;--bad:#ff9c95;--bad-paper:#3d1a1c;
--blue:#6cb2eb;--orange:#f0955a;--violet:#b39df0;--grey:#98a4b0}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:62rem;padding:2rem 1.25rem 4rem;background:var(--paper);color:var(--ink);
font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
h1{font-size:1.7rem;line-height:1.2;margin:0 0 .25rem}h2{font-size:1.1rem;margin:2.2rem 0 .7rem}
.data{color:var(--soft);margin:0 0 1.5rem}
.banner{border-left:6px solid;border-radius:6px;padding:.9rem 1.1rem}
.banner strong{font-size:1.15rem}.banner p,.banner ul{margin:.3rem 0 0}.banner ul{padding-left:1.2rem}
.good{color:var(--good);background:var(--good-paper)}.bad{color:var(--bad);background:var(--bad-paper)}
.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
td{white-space:nowrap}td.text{white-space:normal}
th,td{padding:.45rem .7rem;border-bottom:1px solid var(--line);text-align:right;vertical-align:top}
th{font-weight:600}thead th{color:var(--soft);font-size:.85rem}
th:first-child,td:first-child,.text{text-align:left}
.why{display:block;color:var(--soft);font-size:.82rem;font-weight:400}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(22rem,100%),1fr));gap:1rem}
figure{margin:0;padding:.9rem 1rem .6rem;background:var(--panel);border-radius:8px}
figcaption{font-weight:600}svg{display:block;width:100%;height:auto;margin-top:.4rem}
.legend{display:flex;flex-wrap:wrap;gap:.1rem 1rem;font-size:.82rem;font-weight:400;color:var(--soft)}
.legend b{color:var(--ink)}
.key::before{content:"";display:inline-block;width:1.1em;height:.25em;margin-right:.4em;
vertical-align:middle;border-radius:2px;background:currentColor}
.key.blue::before{background:var(--blue)}.key.orange::before{background:var(--orange)}
.key.violet::before{background:var(--violet)}.key.grey::before{background:var(--grey)}
path{fill:none}path.grid{stroke:var(--line)}path.zero{stroke:var(--soft)}
path.thin{stroke-width:1;opacity:.3}path.thick{stroke-width:2.4;stroke-linejoin:round}
path.blue{stroke:var(--blue)}path.orange{stroke:var(--orange)}
path.violet{stroke:var(--violet)}path.grey{stroke:var(--grey)}
text.tick{font-size:11px;fill:var(--soft)}
pre{white-space:pre-wrap;overflow-wrap:anywhere;background:var(--panel);padding:.7rem 1rem;border-radius:8px}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.15rem 1.2rem;margin:0}
dt{color:var(--soft)}dd{margin:0;overflow-wrap:anywhere}
)css";

}  // namespace

std::string element(const std::string& name, std::string_view text) {
  return "<" + name + ">" + escape_html(text) + "</" + name + ">";
}

std::string bullets(const std::vector<std::string>& sentences) {
  std::string out = "<ul>";
  for (const std::string& sentence : sentences) out += element("li", sentence);
  return out + "</ul>";
}

std::string page(std::string_view title, std::string_view body, std::string_view more_style) {
  return "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">"
         "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">" +
         element("title", title) + "<style>" + std::string(style) + std::string(more_style) +
         "</style></head><body>\n" + std::string(body) + "</body></html>\n";
}

}  // namespace align
