"""Small facts of the world, one row a fact."""

from __future__ import annotations

from .document import table

# element, symbol, atomic number
ELEMENTS = table("""
hydrogen|H|1
helium|He|2
lithium|Li|3
beryllium|Be|4
boron|B|5
carbon|C|6
nitrogen|N|7
oxygen|O|8
fluorine|F|9
neon|Ne|10
sodium|Na|11
magnesium|Mg|12
aluminium|Al|13
silicon|Si|14
phosphorus|P|15
sulfur|S|16
chlorine|Cl|17
argon|Ar|18
potassium|K|19
calcium|Ca|20
titanium|Ti|22
chromium|Cr|24
manganese|Mn|25
iron|Fe|26
cobalt|Co|27
nickel|Ni|28
copper|Cu|29
zinc|Zn|30
arsenic|As|33
bromine|Br|35
krypton|Kr|36
silver|Ag|47
tin|Sn|50
iodine|I|53
xenon|Xe|54
tungsten|W|74
platinum|Pt|78
gold|Au|79
mercury|Hg|80
lead|Pb|82
radon|Rn|86
radium|Ra|88
uranium|U|92
plutonium|Pu|94
""")

# planet, ordinal from the Sun, what it is
PLANETS = table("""
Mercury|first|a small rocky planet and the closest one to the Sun
Venus|second|a rocky planet and the hottest one
Earth|third|a rocky planet with oceans and life
Mars|fourth|a cold rocky planet that is called the red planet
Jupiter|fifth|a gas giant and the largest planet
Saturn|sixth|a gas giant with bright rings
Uranus|seventh|an ice giant that lies on its side
Neptune|eighth|an ice giant and the planet farthest from the Sun
""")

# animal, its young, its sound, number of legs, what it is
ANIMALS = table("""
dog|puppy|barks|four|a mammal
cat|kitten|meows|four|a mammal
cow|calf|moos|four|a mammal
horse|foal|neighs|four|a mammal
sheep|lamb|bleats|four|a mammal
goat|kid|bleats|four|a mammal
pig|piglet|oinks|four|a mammal
lion|cub|roars|four|a mammal
bear|cub|growls|four|a mammal
wolf|pup|howls|four|a mammal
duck|duckling|quacks|two|a bird
hen|chick|clucks|two|a bird
owl|owlet|hoots|two|a bird
goose|gosling|honks|two|a bird
swan|cygnet|trumpets|two|a bird
frog|tadpole|croaks|four|an amphibian
bee|larva|buzzes|six|an insect
elephant|calf|trumpets|four|a mammal
deer|fawn|bellows|four|a mammal
rabbit|kit|squeaks|four|a mammal
snake|hatchling|hisses|no|a reptile
kangaroo|joey|clicks|two|a mammal
""")

# thing, colour
COLOURS = table("""
the sky on a clear day|blue
grass|green
snow|white
coal|black
blood|red
a ripe banana|yellow
a carrot|orange
a tomato|red
a lemon|yellow
milk|white
chocolate|brown
a flamingo|pink
an emerald|green
a ruby|red
a sapphire|blue
the Sun in drawings|yellow
a pumpkin|orange
lavender|purple
a polar bear|white
a raven|black
a strawberry|red
a leaf in summer|green
an elephant|grey
a ripe lime|green
""")

COLOUR_MIXES = table("""
red|blue|purple
red|yellow|orange
blue|yellow|green
red|white|pink
black|white|grey
""")

# question, sentence, the bare fact
GENERAL = table("""
Who wrote Hamlet?|Hamlet was written by William Shakespeare.|William Shakespeare
Who wrote Romeo and Juliet?|Romeo and Juliet was written by William Shakespeare.|William Shakespeare
Who wrote Don Quixote?|Don Quixote was written by Miguel de Cervantes.|Miguel de Cervantes
Who wrote War and Peace?|War and Peace was written by Leo Tolstoy.|Leo Tolstoy
Who wrote Pride and Prejudice?|Pride and Prejudice was written by Jane Austen.|Jane Austen
Who wrote Moby-Dick?|Moby-Dick was written by Herman Melville.|Herman Melville
Who wrote the Odyssey?|The Odyssey is attributed to Homer.|Homer
Who wrote Faust?|Faust was written by Johann Wolfgang von Goethe.|Johann Wolfgang von Goethe
Who wrote Les Miserables?|Les Miserables was written by Victor Hugo.|Victor Hugo
Who wrote Frankenstein?|Frankenstein was written by Mary Shelley.|Mary Shelley
Who wrote 1984?|1984 was written by George Orwell.|George Orwell
Who painted the Mona Lisa?|The Mona Lisa was painted by Leonardo da Vinci.|Leonardo da Vinci
Who painted The Starry Night?|The Starry Night was painted by Vincent van Gogh.|Vincent van Gogh
Who painted Guernica?|Guernica was painted by Pablo Picasso.|Pablo Picasso
Who composed the Ninth Symphony?|The Ninth Symphony was composed by Ludwig van Beethoven.|Ludwig van Beethoven
Who composed The Magic Flute?|The Magic Flute was composed by Wolfgang Amadeus Mozart.|Wolfgang Amadeus Mozart
Who discovered penicillin?|Penicillin was discovered by Alexander Fleming.|Alexander Fleming
Who discovered radium?|Radium was discovered by Marie and Pierre Curie.|Marie and Pierre Curie
Who invented the telephone?|The telephone was patented by Alexander Graham Bell.|Alexander Graham Bell
Who invented the printing press?|The printing press was developed by Johannes Gutenberg.|Johannes Gutenberg
Who invented the World Wide Web?|The World Wide Web was invented by Tim Berners-Lee.|Tim Berners-Lee
Who wrote the first computer program?|The first computer program was written by Ada Lovelace.|Ada Lovelace
Who proposed the theory of relativity?|The theory of relativity was proposed by Albert Einstein.|Albert Einstein
Who proposed the theory of evolution?|The theory of evolution was proposed by Charles Darwin.|Charles Darwin
Who formulated the laws of motion?|The laws of motion were formulated by Isaac Newton.|Isaac Newton
Who was the first person on the Moon?|The first person on the Moon was Neil Armstrong.|Neil Armstrong
Who was the first person in space?|The first person in space was Yuri Gagarin.|Yuri Gagarin
Who created the Python programming language?|Python was created by Guido van Rossum.|Guido van Rossum
Who created Linux?|Linux was created by Linus Torvalds.|Linus Torvalds
Who created the C programming language?|C was created by Dennis Ritchie.|Dennis Ritchie
What is the largest ocean?|The largest ocean is the Pacific Ocean.|the Pacific Ocean
What is the largest planet?|The largest planet is Jupiter.|Jupiter
What is the smallest planet?|The smallest planet is Mercury.|Mercury
What is the largest continent?|The largest continent is Asia.|Asia
What is the smallest continent?|The smallest continent is Australia.|Australia
What is the largest country?|The largest country by area is Russia.|Russia
What is the smallest country?|The smallest country is Vatican City.|Vatican City
What is the highest mountain?|The highest mountain is Mount Everest.|Mount Everest
What is the longest river?|The longest river is the Nile.|the Nile
What is the largest desert?|The largest hot desert is the Sahara.|the Sahara
What is the largest animal?|The largest animal is the blue whale.|the blue whale
What is the fastest land animal?|The fastest land animal is the cheetah.|the cheetah
What is the tallest animal?|The tallest animal is the giraffe.|the giraffe
What is the hardest natural material?|The hardest natural material is diamond.|diamond
What is the closest star to Earth?|The closest star to Earth is the Sun.|the Sun
What is the chemical formula of water?|The chemical formula of water is H2O.|H2O
What is the chemical formula of salt?|The chemical formula of table salt is NaCl.|NaCl
What is the boiling point of water?|Water boils at 100 degrees Celsius at sea level.|100 degrees Celsius
What is the freezing point of water?|Water freezes at 0 degrees Celsius.|0 degrees Celsius
What is the speed of light?|The speed of light is about 300,000 kilometres per second.|about 300,000 kilometres per second
What is the value of pi?|Pi is about 3.14159.|about 3.14159
How many continents are there?|There are seven continents.|seven
How many planets are in the solar system?|There are eight planets in the solar system.|eight
How many days are in a week?|There are seven days in a week.|seven
How many days are in a year?|There are 365 days in a year, and 366 in a leap year.|365
How many months are in a year?|There are twelve months in a year.|twelve
How many hours are in a day?|There are 24 hours in a day.|24
How many minutes are in an hour?|There are 60 minutes in an hour.|60
How many seconds are in a minute?|There are 60 seconds in a minute.|60
How many metres are in a kilometre?|There are 1000 metres in a kilometre.|1000
How many grams are in a kilogram?|There are 1000 grams in a kilogram.|1000
How many centimetres are in a metre?|There are 100 centimetres in a metre.|100
How many bits are in a byte?|There are 8 bits in a byte.|8
How many letters are in the English alphabet?|There are 26 letters in the English alphabet.|26
How many sides does a triangle have?|A triangle has three sides.|three
How many sides does a square have?|A square has four sides.|four
How many sides does a hexagon have?|A hexagon has six sides.|six
How many legs does a spider have?|A spider has eight legs.|eight
How many legs does an insect have?|An insect has six legs.|six
How many players are in a football team?|A football team has eleven players on the field.|eleven
How many strings does a violin have?|A violin has four strings.|four
How many keys does a piano have?|A modern piano has 88 keys.|88
How many teeth does an adult have?|An adult has up to 32 teeth.|32
How many hearts does an octopus have?|An octopus has three hearts.|three
When did the First World War begin?|The First World War began in 1914.|1914
When did the Second World War end?|The Second World War ended in 1945.|1945
When did people first land on the Moon?|People first landed on the Moon in 1969.|1969
When did the Berlin Wall fall?|The Berlin Wall fell in 1989.|1989
When did the French Revolution begin?|The French Revolution began in 1789.|1789
Where is the Eiffel Tower?|The Eiffel Tower is in Paris.|Paris
Where is the Colosseum?|The Colosseum is in Rome.|Rome
Where is the Statue of Liberty?|The Statue of Liberty is in New York.|New York
Where is the Taj Mahal?|The Taj Mahal is in Agra, India.|Agra
Where is Big Ben?|Big Ben is in London.|London
Where is the Brandenburg Gate?|The Brandenburg Gate is in Berlin.|Berlin
Where is Machu Picchu?|Machu Picchu is in Peru.|Peru
Where are the pyramids of Giza?|The pyramids of Giza are in Egypt.|Egypt
Where is Mount Fuji?|Mount Fuji is in Japan.|Japan
Where is the Great Barrier Reef?|The Great Barrier Reef is in Australia.|Australia
What do bees make?|Bees make honey.|honey
What do plants need to grow?|Plants need light, water, air and minerals to grow.|light, water, air and minerals
What do cows drink?|Cows drink water.|water
What gas do people breathe in to live?|People need oxygen to live.|oxygen
What is ice made of?|Ice is frozen water.|frozen water
What is bread made of?|Bread is made of flour, water, yeast and salt.|flour, water, yeast and salt
What is glass made of?|Glass is mostly made of sand.|sand
What is paper made of?|Paper is made of wood fibres.|wood fibres
What is cheese made of?|Cheese is made of milk.|milk
Which season comes after winter?|Spring comes after winter.|spring
Which season comes after spring?|Summer comes after spring.|summer
Which season comes after summer?|Autumn comes after summer.|autumn
Which season comes after autumn?|Winter comes after autumn.|winter
Which is the hottest planet?|The hottest planet is Venus.|Venus
""")

# language: hello, thank you, goodbye, yes, water
GREETINGS_IN = table("""
French|bonjour|merci|au revoir|oui|eau
Spanish|hola|gracias|adios|si|agua
German|hallo|danke|auf Wiedersehen|ja|Wasser
Italian|ciao|grazie|arrivederci|si|acqua
Portuguese|ola|obrigado|adeus|sim|agua
Dutch|hallo|dank je|tot ziens|ja|water
Swedish|hej|tack|hej da|ja|vatten
Danish|hej|tak|farvel|ja|vand
Norwegian|hei|takk|ha det|ja|vann
Finnish|hei|kiitos|nakemiin|kylla|vesi
Polish|czesc|dziekuje|do widzenia|tak|woda
Turkish|merhaba|tesekkurler|hosca kal|evet|su
Swahili|jambo|asante|kwaheri|ndiyo|maji
Japanese|konnichiwa|arigato|sayonara|hai|mizu
Indonesian|halo|terima kasih|selamat tinggal|ya|air
""")

MEMBERS = {
    "fruits": "apple banana cherry grape kiwi lemon mango orange peach pear plum strawberry".split(),
    "vegetables": "bean cabbage carrot leek onion pea pepper potato pumpkin spinach".split(),
    "colours": "black blue brown green orange pink purple red white yellow".split(),
    "animals": "bear cat cow dog elephant fox horse lion rabbit sheep tiger wolf".split(),
    "birds": "crow duck eagle goose owl parrot pigeon robin sparrow swan".split(),
    "fish": "carp cod herring pike salmon sardine shark trout tuna".split(),
    "metals": "aluminium copper gold iron lead nickel silver tin zinc".split(),
    "instruments": "cello drum flute guitar harp piano trumpet violin".split(),
    "sports": "basketball cycling football hockey rowing rugby swimming tennis".split(),
    "tools": "chisel drill file hammer pliers saw screwdriver spanner".split(),
    "programming languages": "C Go Haskell Java JavaScript Julia Python Ruby Rust Swift".split(),
    "planets": "Mercury Venus Earth Mars Jupiter Saturn Uranus Neptune".split(),
    "continents": ["Africa", "Antarctica", "Asia", "Australia", "Europe", "North America"],
    "flowers": "daisy iris lily orchid poppy rose sunflower tulip violet".split(),
    "trees": "ash beech birch cedar elm fir maple oak pine willow".split(),
    "drinks": "coffee juice lemonade milk tea water".split(),
}
