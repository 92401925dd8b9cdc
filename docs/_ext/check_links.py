"""Check that every internal link of a built site leads somewhere: ``check_links.py build/docs``."""

import sys
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


@dataclass
class Page:
    """What other pages can link to, and what this one links to."""

    anchors: set[str] = field(default_factory=set)
    links: list[str] = field(default_factory=list)
    """Internal ones, as written."""
    external: list[str] = field(default_factory=list)
    """Scripts, styles, images and fonts from elsewhere: a site that is read offline has none."""


class _Parser(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.page = Page()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.page.anchors |= {values[key] or "" for key in ("id", "name") if key in values}
        for key in ("href", "src"):
            target = values.get(key)
            if target is None:
                continue
            if urlsplit(target).scheme or target.startswith("//"):
                loaded = tag != "a" and not target.startswith("data:")
                if loaded and values.get("rel") != "canonical":
                    self.page.external.append(target)
            else:
                self.page.links.append(target)


def parse(path: Path) -> Page:
    """Read one HTML file."""
    parser = _Parser()
    parser.feed(path.read_text(encoding="utf-8"))
    return parser.page


def problems(site: Path) -> list[str]:
    """Describe every dead link, missing anchor and file loaded from elsewhere in a site."""
    pages = {path.resolve(): parse(path) for path in site.rglob("*.html")}
    found = []
    for path, page in sorted(pages.items()):
        place = path.relative_to(site.resolve())
        found += [f"{place}: loads {target} from elsewhere" for target in page.external]
        for link in page.links:
            file, anchor = (
                unquote(part) for part in (urlsplit(link).path, urlsplit(link).fragment)
            )
            target = (path.parent / file).resolve() if file else path
            if not target.exists():
                found.append(f"{place}: {link} does not exist")
            elif anchor and target in pages and anchor not in pages[target].anchors:
                found.append(f"{place}: {link} has no such anchor")
    return found


if __name__ == "__main__":
    dead = problems(Path(sys.argv[1]))
    print("\n".join(dead) or "every internal link leads somewhere")
    sys.exit(bool(dead))
