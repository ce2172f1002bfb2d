"""Facts about English words, one pair a word."""

from __future__ import annotations


def _pairs(text: str) -> tuple[tuple[str, str], ...]:
    return tuple((left, right) for left, right in (pair.split("-") for pair in text.split()))


OPPOSITES = _pairs("""
hot-cold big-small tall-short fast-slow happy-sad light-dark good-bad old-young new-old up-down
left-right in-out open-closed full-empty hard-soft wet-dry clean-dirty rich-poor strong-weak
loud-quiet early-late easy-difficult high-low long-short thick-thin wide-narrow deep-shallow
heavy-light near-far first-last begin-end buy-sell give-take push-pull love-hate win-lose
true-false right-wrong yes-no day-night black-white north-south east-west above-below
inside-outside before-after always-never everything-nothing brave-cowardly cheap-expensive
sharp-blunt smooth-rough sweet-sour alive-dead asleep-awake war-peace friend-enemy arrive-leave
remember-forget laugh-cry increase-decrease accept-refuse ancient-modern busy-idle calm-nervous
careful-careless cruel-kind dangerous-safe familiar-strange generous-mean guilty-innocent
polite-rude possible-impossible public-private simple-complex success-failure visible-invisible
warm-cool wise-foolish lazy-hardworking honest-dishonest join-leave maximum-minimum more-less
summer-winter sunrise-sunset teach-learn top-bottom
""")

PLURALS = _pairs("""
child-children man-men woman-women foot-feet tooth-teeth goose-geese mouse-mice person-people
ox-oxen leaf-leaves knife-knives wife-wives life-lives wolf-wolves shelf-shelves loaf-loaves
half-halves thief-thieves potato-potatoes tomato-tomatoes hero-heroes echo-echoes city-cities
baby-babies lady-ladies story-stories country-countries party-parties box-boxes fox-foxes
bus-buses glass-glasses dish-dishes watch-watches church-churches sheep-sheep fish-fish deer-deer
cactus-cacti crisis-crises index-indices cat-cats dog-dogs book-books house-houses tree-trees
car-cars apple-apples table-tables river-rivers day-days key-keys boy-boys toy-toys piano-pianos
photo-photos roof-roofs star-stars horse-horses bridge-bridges machine-machines pipe-pipes
""")

PAST_TENSES = _pairs("""
go-went come-came see-saw eat-ate drink-drank run-ran swim-swam sing-sang write-wrote read-read
speak-spoke take-took give-gave make-made do-did have-had be-was say-said tell-told think-thought
buy-bought bring-brought teach-taught catch-caught find-found know-knew grow-grew fly-flew
draw-drew throw-threw drive-drove ride-rode rise-rose break-broke choose-chose freeze-froze
sleep-slept keep-kept leave-left lose-lost build-built send-sent spend-spent sit-sat stand-stood
understand-understood win-won begin-began forget-forgot get-got hear-heard hold-held meet-met
pay-paid sell-sold shine-shone walk-walked play-played work-worked look-looked jump-jumped
love-loved dance-danced stop-stopped plan-planned carry-carried study-studied try-tried
""")

DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
MONTHS = (
    "January February March April May June July August September October November December"
).split()
NUMBER_WORDS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen twenty"
).split()
