"""Captions as the web has them: what tokenizers stumble over."""

import itertools

PIECES = (
    "plain words", "“curly” quotes", "it’s an apostrophe", "it's", "a—dash–and-hyphen", "…ellipsis",
    "caf\u00e9", "cafe\u0301", "&amp; &lt;b&gt;", "&quot;quoted&quot;", "caf&eacute;", 
    "&#39;x&#39;",
    "&nbsp;", "<b>bold</b>", "日本語", "中文字", "한국어", "ไทย", "हिन्दी", "العربية", "עברית",
    "Ελληνικά", "Русский", "İstanbul ı", "STRASSE Straße", "ﬁne ﬂow", "ＦＵＬＬ ｗｉｄｔｈ",
    "x² ½ №5", "∑ α≤β", "🎉", "👍🏽", "👩‍👩‍👧", "🇯🇵", "❤️", "a\u00a0b", "a\u200bb", "a\u2028b",
    "a\tb\nc", "  spaces   ", "#tag @user", "http://a.example/b?c=1&d=2", "100,000.50", "3-4pm",
    "$5 €6 £7", "C++ & C#", "T-shirt", "o'clock 'n' roll", "don‘t", "schÃ¶n", "â€œmojibakeâ€\x9d",
    "\x00nul", "\u202ertl\u202c", "\ufeffbom", "\u00ad soft", "z\u0336a\u0336l\u0336go", "ǆ ǅ",
    "<|endoftext|>", "<|startoftext|> x", "a" * 90, "word " * 90, "?!?!", ":-)", "(c) © ® ™",
    "~^`|\\",
    "𝓯𝓪𝓷𝓬𝔂", "ⅷ Ⅷ", "ÅÅ", "\u1e9b\u0323", "_under_score_", "*star*", "% 50%", "e.g. i.e.",
)  # fmt: skip
FRAMES = ("{}", "A photo of {}", "{} in the rain, 4k", "{}{}", "THE {}!")


def nasty() -> list[str]:
    """A few hundred different captions, the empty one among them."""
    made = [frame.replace("{}", piece) for frame, piece in itertools.product(FRAMES, PIECES)]
    return list(dict.fromkeys(["", " ", *made]))
