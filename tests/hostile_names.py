"""Names that a model may have and that must stay text wherever they are shown."""

HOSTILE_NAMES = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</style><svg onload=alert(1)>",
    "{{7*7}}{%for%}",
    "\x1b]0;pwned\x07\x1b[2J\r",
    "left\u202eright\u200b",
    "[/foo]",
    "[link=file:///etc/passwd]x[/link]",
    "::error::pwned",
    "x\n::stop-commands::y",
    "##vso[task.setvariable variable=a]b",
    "##[error]x",
    "=cmd|' /C calc'!A0",
    "`code` | *bold* | _it_",
    "a" * 300,
    "",
    "\ud800",
)
