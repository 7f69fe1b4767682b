"""Names that a domain may have, and a page must show as they are."""

HOSTILE = (
    "<img src=x onerror=window.pwned=1>",
    "'\"><script>window.pwned=1</script>",
    "red-\u202egnp.exe",
    "a\u200bb\u0007c\u00a0d",
    "{{constructor.constructor('window.pwned=1')()}}",
    "javascript:window.pwned=1//",
    "W" * 3500,
)
