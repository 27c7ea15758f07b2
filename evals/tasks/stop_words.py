"""English function words: closed classes, inflected forms included. For the filtered variants of LAMBADA.

Word lists of libraries also hold nouns and verbs that are answers (`fire`, `name`, `side` stand in scikit-learn's).
"""

ARTICLES = "a an the"
PRONOUNS = (
    "i me my mine myself you your yours yourself yourselves he him his himself she her hers herself it its itself "
    "we us our ours ourselves they them their theirs themselves one who whom whose which what that this these those "
    "each either neither both all any some none such other another"
)
AUXILIARIES = (
    "am is are was were be been being have has had having do does did doing will would shall should can could may "
    "might must ought not"
)
PREPOSITIONS = (
    "about above across after against along among around at before behind below beneath beside between beyond by down "
    "during except for from in inside into like near of off on onto out outside over past since than through "
    "throughout to toward towards under until up upon with within without"
)
CONJUNCTIONS = "and as because but if nor or so though although unless when whenever where wherever whether while yet"
ADVERBS = "again also even ever here how just more most much never no now only own same then there too very why"

STOP_WORDS = frozenset(" ".join((ARTICLES, PRONOUNS, AUXILIARIES, PREPOSITIONS, CONJUNCTIONS, ADVERBS)).split())
