"""What things are, in one or two sentences, and how to do everyday things, in steps."""

from __future__ import annotations

from .document import table

# what is asked for, the explanation
DEFINITIONS = table("""
deep learning|Deep learning is a kind of machine learning that uses neural networks with many layers. Each layer turns its input into a more useful form, and all layers are trained together on examples.
machine learning|Machine learning is the study of programs that improve with data. Instead of following fixed rules, such a program finds patterns in examples and uses them to make predictions.
artificial intelligence|Artificial intelligence is the field that builds machines which do tasks that seem to need thought, such as understanding language, recognising pictures or planning.
a neural network|A neural network is a function made of many simple units that are connected in layers. The strengths of the connections are learnt from examples.
a language model|A language model is a program that predicts the next word of a text. By predicting one word after another it can answer questions and write.
a transformer|A transformer is a neural network for sequences. It uses attention, so that each position can look at all earlier positions and pick what matters.
attention|Attention is a way for a neural network to weigh its inputs. Each position compares itself with the others and takes more from those that match.
a token|A token is a piece of text that a language model reads or writes, such as a word or part of a word.
a tokenizer|A tokenizer is a program that cuts text into tokens and turns each token into a number.
inference|Inference is the use of a trained model to compute answers for new inputs.
a GPU|A GPU is a processor with thousands of small cores that work in parallel. It was made for graphics and is now used to train and run neural networks.
a CPU|A CPU is the main processor of a computer. It reads instructions from memory and carries them out one after another, very quickly.
a cache|A cache is a small and fast memory that keeps results which are likely to be needed again.
a KV cache|A KV cache keeps the keys and values of all earlier tokens, so that a language model does not compute them again for each new token.
a batch|A batch is a group of requests that a processor handles together, because that is faster than one by one.
tensor parallelism|Tensor parallelism splits each layer of a model over several processors, so that they compute one answer together.
quantization|Quantization stores the numbers of a model with fewer bits. The model becomes smaller and faster, and a little less exact.
latency|Latency is the time between a request and its answer.
throughput|Throughput is the amount of work that a system completes in a given time.
a router|A router is a part of a system that receives requests and decides where each of them goes.
a server|A server is a program that waits for requests over a network and answers them.
an API|An API is a set of rules by which one program can use another. API stands for application programming interface.
a web browser|A web browser is a program that fetches pages from the Internet and shows them.
the Internet|The Internet is a worldwide network of computers that exchange data by common rules.
a database|A database is an organised collection of data that programs can search and change safely.
an algorithm|An algorithm is a list of exact steps that solves a problem.
a compiler|A compiler is a program that translates source code into instructions that a machine can run.
a variable|A variable is a name for a value in a program.
a function|A function is a named piece of a program that takes inputs and returns a result.
a loop|A loop is a part of a program that is repeated while a condition holds or for each item of a collection.
a list in Python|A list in Python is an ordered collection of items that can be changed. It is written in square brackets, as in [1, 2, 3].
a dictionary in Python|A dictionary in Python maps keys to values. It is written in braces, as in {"one": 1, "two": 2}.
a tuple in Python|A tuple in Python is an ordered collection that cannot be changed. It is written in round brackets, as in (1, 2).
Python|Python is a programming language that is easy to read. It is used for the web, for science, for automation and for machine learning.
Linux|Linux is a free operating system kernel. It runs on most servers, on phones and on many other devices.
JSON|JSON is a text format for data. It has objects, arrays, strings, numbers, true, false and null.
HTTP|HTTP is the protocol by which browsers and programs request documents from web servers.
encryption|Encryption turns a message into a form that only those with the right key can read.
open source software|Open source software is software whose source code everyone may read, change and share.
a bug|A bug is a mistake in a program that makes it behave in a way that nobody wanted.
recursion|Recursion is when a function calls itself on a smaller part of the problem until the problem is trivial.
a penstock|A penstock is a pipe that carries water from a reservoir to the turbines of a power station, with a gate that meters the flow.
Penstock|Penstock is a server for open-weight language models. A router meters the requests, and one or more shards turn them into tokens.
photosynthesis|Photosynthesis is the process by which plants use sunlight to turn water and carbon dioxide into sugar and oxygen.
gravity|Gravity is the force by which masses attract each other. It keeps us on the ground and the planets in their orbits.
electricity|Electricity is the flow or the presence of electric charge. It powers lamps, motors and computers.
an atom|An atom is the smallest piece of a chemical element. It has a nucleus of protons and neutrons, and electrons around it.
a molecule|A molecule is a group of atoms that are bound together. A water molecule has two hydrogen atoms and one oxygen atom.
a cell|A cell is the smallest unit of life. All living things are made of one or more cells.
DNA|DNA is the molecule that carries the genetic instructions of living things. It has the shape of a double helix.
evolution|Evolution is the change of living things over many generations. Those that fit their surroundings better have more offspring.
a galaxy|A galaxy is a huge group of stars, gas and dust that is held together by gravity. Our galaxy is the Milky Way.
a star|A star is a large ball of hot gas that shines because atoms fuse in its core.
a planet|A planet is a large round body that moves around a star.
a black hole|A black hole is a region of space where gravity is so strong that not even light can escape.
the Moon|The Moon is the natural satellite of the Earth. It goes around the Earth in about 27 days.
the Sun|The Sun is the star at the centre of our solar system. It gives the Earth light and warmth.
a volcano|A volcano is an opening in the ground through which hot rock, ash and gas come out.
an earthquake|An earthquake is a shaking of the ground that happens when rock deep below suddenly moves.
a rainbow|A rainbow is an arc of colours in the sky. It appears when sunlight is bent and reflected in drops of water.
rain|Rain is water that falls from clouds in drops.
snow|Snow is frozen water that falls from clouds in white flakes.
a river|A river is a large stream of water that flows to a sea, a lake or another river.
a desert|A desert is a dry place where very little rain falls and few plants grow.
climate|Climate is the weather of a place as it is on average over many years.
energy|Energy is the ability to do work. It can change its form, but it is never lost.
a magnet|A magnet is an object that attracts iron. It has a north pole and a south pole.
sound|Sound is a vibration that travels through air, water or solids and that we can hear.
light|Light is the radiation that we can see. Nothing travels faster than light in empty space.
a dam|A dam is a wall across a river that holds the water back and makes a lake.
a turbine|A turbine is a machine with blades that turns when water, steam or wind flows through it.
democracy|Democracy is a form of government in which the people decide, mostly by electing those who govern.
money|Money is what people accept in exchange for goods and services.
inflation|Inflation is a general rise in prices, so that the same money buys less.
a company|A company is an organisation that makes or sells things in order to earn money.
history|History is the study of what happened in the past.
mathematics|Mathematics is the study of numbers, shapes, patterns and proofs.
a prime number|A prime number is a number greater than one that only one and itself divide. The first ones are 2, 3, 5, 7 and 11.
a triangle|A triangle is a flat shape with three straight sides and three corners.
a circle|A circle is a round shape. All its points are equally far from the centre.
music|Music is sound that is arranged in time so that it has rhythm, melody or harmony.
a poem|A poem is a text that uses rhythm, sound and images to say something in few words.
a novel|A novel is a long story in prose that tells of invented people and events.
a noun|A noun is a word that names a person, a place, a thing or an idea.
a verb|A verb is a word that says what someone does or what happens.
an adjective|An adjective is a word that describes a noun.
a museum|A museum is a place that keeps and shows objects of art, science or history.
a library|A library is a place where books are kept and lent to readers.
a doctor|A doctor is a person who is trained to treat people who are ill.
bread|Bread is a food that is baked from flour, water, salt and often yeast.
coffee|Coffee is a drink that is made from the roasted seeds of the coffee plant.
chocolate|Chocolate is a sweet food that is made from the seeds of the cacao tree.
a bicycle|A bicycle is a vehicle with two wheels that is moved by pedals.
a bridge|A bridge is a structure that carries a road or a path over a river, a valley or another road.
chess|Chess is a board game for two players. Each tries to trap the king of the other.
football|Football is a game in which two teams of eleven players try to kick a ball into a goal.
""")

# what is to be done, its steps
HOW_TO = table("""
make tea|Boil some water.|Put a tea bag in a cup.|Pour the hot water over it.|Wait for three minutes.|Take the tea bag out and enjoy your tea.
make coffee|Grind the coffee beans.|Put the coffee in a filter.|Pour hot water over it slowly.|Wait until it has run through.|Pour the coffee into a cup.
boil an egg|Bring water to the boil in a small pot.|Lower the egg into the water with a spoon.|Wait for seven minutes.|Cool the egg under cold water.|Peel it and add a little salt.
bake bread|Mix flour, water, yeast and salt.|Knead the dough for ten minutes.|Let it rise for an hour.|Shape it into a loaf.|Bake it for forty minutes in a hot oven.
cook pasta|Bring a large pot of water to the boil.|Add salt to the water.|Put the pasta in and stir.|Cook it for about ten minutes.|Drain it and serve it with a sauce.
make a salad|Wash the lettuce and the tomatoes.|Cut everything into pieces.|Mix oil, vinegar and salt.|Pour the dressing over the salad.|Toss it and serve it at once.
plant a tree|Choose a sunny place.|Dig a hole twice as wide as the roots.|Put the tree in and fill the hole with soil.|Press the soil down gently.|Water the tree well.
change a tyre|Park on flat ground.|Loosen the nuts a little.|Lift the car with the jack.|Swap the wheel and put the nuts back.|Lower the car and tighten the nuts.
learn a language|Learn the most common words first.|Listen to the language every day.|Speak it as often as you can.|Read simple books.|Do not be afraid of mistakes.
write a letter|Write the date at the top.|Greet the reader.|Say why you write.|Thank the reader at the end.|Sign your name.
clean a window|Mix warm water with a little soap.|Wipe the glass with a wet cloth.|Rinse it with clean water.|Dry it with a soft cloth.
send an email|Open your mail program.|Enter the address.|Write a clear subject.|Write your message.|Press send.
install a Python package|Open a terminal.|Create a virtual environment.|Activate it.|Run pip install with the name of the package.
find a bug|Read the error message.|Make the problem happen again.|Change one thing at a time.|Fix the cause.|Write a test so that it stays fixed.
stay healthy|Eat plenty of fruit and vegetables.|Drink enough water.|Move every day.|Sleep well.|See your friends.
train a neural network|Collect examples.|Split them into training and test data.|Choose a model.|Adjust its weights until the loss is small.|Check it on the test data.
serve a language model|Choose a model.|Start the launcher with its name.|Wait until the server is ready.|Send a request to the server.|Read the tokens as they arrive.
save water|Take short showers.|Repair dripping taps.|Collect rain for the garden.|Run the washing machine only when it is full.
""")
