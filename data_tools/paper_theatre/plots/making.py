"""Stories of making something: a boat, a cake, a song."""

from data_tools.paper_theatre.plots.plot import Plot, opening, page

BOAT = Plot(
    name="building a boat",
    titles=("{a} Builds a Boat", "The Leaky Little Boat", "To the Island and Back", "A Boat for Two"),
    cast="ab",
    values={
        "HOME": ("village", "garden"),
        "WATER": ("pond", "beach"),
        "STUFF": ("an old barrel", "a broken table", "a big wooden box", "an old front door"),
        "THERE": ("the reeds", "the far shore", "the little island", "the round rock"),
    },
    beats=(
        page(
            opening("oneday", "WATER"),
            (
                '{a.He} looked at {THERE}, far across the water. "I wish I could go there," {a.he} said, {a:sad.ing}.',
                "{a.He} {a~sat} and looked at {THERE}, far across the water. How {a.he} wished to go there!",
            ),
        ),
        page(
            (
                '"I will build a boat," said {a}, and {a.he} {a~hurried} {to:HOME} to find some wood.',
                "Then {a} had an idea. {a.He} {a~ran} back {to:HOME} and found {STUFF}.",
            ),
            (
                '{a.He} sawed and hammered until the sun was high. "This will be a fine boat!" {a.he} said.',
                "Bang, bang, bang! {a.He} {a:happy} and hit every nail, and now and then {a.his} thumb.",
                "{a.He} had no plan, only a hammer, and that was enough. {a.He} {a:happy}.",
            ),
        ),
        page(
            (
                '"What are you making?" asked somebody. It was {b.new}.',
                "The noise brought {b.new}.",
            ),
            (
                '{b.He} {b~frowned}. "I was asleep! What is all this banging?" {a} {a:surprised}.',
                '"A boat!" said {a}. {b} {b:surprised}. "Out of that?" {b.he} asked.',
                '"A boat," said {a}, {a:happy.ly}. {b} {b~laughed}. "It looks like a bathtub!"',
            ),
        ),
        page(
            (
                "When the {boat} was done, {a} pulled it {to:WATER} and pushed it in.",
                "{a} {a~marched} {to:WATER} with the {boat} on {a.his} back and pushed it in.",
            ),
            (
                "Glug, glug, glug! It sank at once. {a} {a:surprised}, and {b} {b:surprised}.",
                "{b} {b~waved} goodbye, but it went glug, glug, glug. {a} {a:angry,surprised}.",
                "It floated for one moment. Then it filled up with water, and {a} {a:sad,angry}.",
            ),
        ),
        page(
            (
                '{a} {a~sat down} in the wet sand. "It is no good," {a.he} said.',
                "Dripping wet, {a} {a~sat down} on the bank and {a:sad}.",
                '{a} {a~stamped HIS foot}. "Stupid boat! Stupid water!" {a.he} shouted.',
            ),
            (
                '{b} {b~sat down} too. "I am sorry that I laughed," {b.he} said.',
                '"It was not so bad," said {b} kindly. "It only had too many holes."',
                "{b} did not laugh now. {b.He} {b:sad} and put an arm round {a}.",
            ),
        ),
        page(
            (
                '"I know how to stop holes," said {b}. "We need pine tar from the forest."',
                '"Holes can be mended," said {b}. "Come with me, I know what we need!"',
            ),
            (
                "So {ab} {ab~ran} {to:forest} and filled a {basket} with sticky brown tar.",
                "{To:forest} {ab.they} {ab~hurried}, and soon {a} carried a {basket} full of moss and tar.",
            ),
        ),
        page(
            (
                "All day {ab} worked {at:HOME}. {a} held the boards, and {b} painted on the tar.",
                "Back {at:HOME}, {b} showed {a} how to press moss into every crack.",
            ),
            (
                '"You have tar on your nose," said {b}, {b:happy,waving.ing}.',
                "{t:dusk} {a.his} arms were heavy, and {a.he} {a:sleepy}.",
                "{a} {a~yawned}, and {b} {b~yawned} too. There was not one hole left.",
            ),
        ),
        page(
            (
                "{t:nextday} {ab} carried the {boat} back {to:WATER}.",
                "{t:nextday} {ab} {ab~walked} {to:WATER} and set the {boat} on the water very, very gently.",
            ),
            (
                "One, two, three, and it floated! {a} {a:cheering}, and {b} {b:cheering}.",
                '"It floats!" {a} {a:cheering}. {b} {b~blinked in surprise}. "It really does," {b.he} said.',
                "It rocked a little, and it stayed dry. {ab} {ab:cheering}.",
            ),
        ),
        page(
            (
                "[{ab}|{ab.They}|{ab.friends}] {ab~sat down} in the {boat}, one at each end, and began to row.",
                "[{ab}|{ab.They}|{ab.friends}] {ab~sat} in the {boat} and pulled at the oars.",
            ),
            (
                "{b} {b:surprised} when a silver fish flew right over the oars.",
                'A duck swam by. "Good day, captain!" said {b}, and {a} {a~laughed}.',
                '"One, two! One, two!" called {a}. Slowly {THERE} came closer.',
            ),
        ),
        page(
            (
                "And there it was! {a} stepped out at {THERE} and {a~threw up HIS arms}.",
                "Bump! There was {THERE} at last. {a} {a:cheering}.",
            ),
            (
                '"It is even better than I thought," said {a}. {b} found a smooth white stone.',
                "{b} {b~ran} round it three times, and that did not take long.",
                "[{ab}|{ab.They}|{ab.friends}] ate bread and jam there, and no bread ever tasted so good.",
            ),
            optional=True,
        ),
        page(
            (
                "{t:dusk} {ab} rowed home. The water was gold and still.",
                "{t:dusk} the {boat} carried {ab} home, {at:WATER}, slowly and softly.",
            ),
            (
                '"What shall we call it?" asked {a}, {a:sleepy.ing}. "The Bathtub," said {b}, {b:happy,waving.ing}.',
                '"Tomorrow we will go again," said {b}. But {a} only {a~yawned}.',
                '{a} {a~waved} to {THERE}. "See you soon!" {a.he} called, and {b} {b:sleepy}.',
            ),
        ),
    ),
)

CAKE = Plot(
    name="baking a cake",
    titles=("The Birthday Cake", "{a} Bakes a Cake", "Too Much Salt", "A Cake for {c}"),
    cast="abc",
    values={
        "FRUIT": ("cherries", "strawberries", "blueberries", "apples", "raspberries"),
        "WHERE": ("garden", "meadow", "forest"),
    },
    beats=(
        page(
            opening("oneday", "kitchen"),
            (
                '"Tomorrow is the birthday of my best friend," {a.he} said. "I will bake the biggest cake ever!"',
                "{a.He} tied up {a.his} sleeves and {a:happy}. Tomorrow was a birthday, and {a.he} had a plan.",
            ),
        ),
        page(
            (
                "Then came {b.new}.",
                "At the door was {b.new}.",
            ),
            (
                '{b.He} {b~waved}. "May I stir?" asked {b}. "You may," said {a}.',
                '"Is it ready yet?" asked {b}, {b:sleepy.ing}. {a} {a~laughed}. "I have not even begun!"',
                '"I can crack the eggs," said {b} {b:happy.ly}. "I hardly ever miss the bowl."',
            ),
        ),
        page(
            (
                "[{ab}|{ab.They}|{ab.friends}] looked into the jar. There were no {FRUIT} left, not one!",
                '"First the {FRUIT}," said {a}, but the jar was empty. {b} {b:surprised}.',
            ),
            (
                "So {ab.they} took a {basket} and {ab~ran} {to:WHERE}.",
                "So {a} took the {basket}, and off {ab.they} {ab~hurried} {to:WHERE} to pick some.",
            ),
        ),
        page(
            (
                "[{ab}|{ab.They}|{ab.friends}] picked and picked. One for the {basket}, one for the tummy.",
                "There were {FRUIT} everywhere {at:WHERE}. {b} {b~sat} in the middle and ate.",
            ),
            (
                '"Leave some for the cake!" said {a}, {a:angry.ing}. {b} hid {b.his} red hands.',
                "{a} {a:happy}, but {b} {b~sat down} and held {b.his} full tummy.",
                '{a} {a:angry}. "Not in your mouth!" {a.he} said. {b} {b~giggled}.',
            ),
            optional=True,
        ),
        page(
            (
                "Back {at:kitchen}, {a} read the big {book}, and {b} poured in flour, milk and honey.",
                "Soon {ab} were {at:kitchen} again. {a} put the {basket} beside the {book} and began to stir.",
            ),
            (
                "A white cloud rose up. {b} {b:surprised}, and {a} {a~laughed}.",
                '"Flour, eggs, milk, and now the sugar," said {a}. {b} {b~skipped} to the shelf and took a big blue jar.',
                '{b} {b~danced} round the table. "Stir, stir, stir!" {b.he} sang.',
            ),
        ),
        page(
            (
                "At last the {cake} came out of the oven, round and golden. {a} took a tiny bite.",
                "Ding! The {cake} was done. {b} {b~jumped up and down}, and {a} tasted a crumb.",
            ),
            (
                '"Ugh! Salt!" {a} {a:surprised,angry}. It was salt in the blue jar.',
                '{a.He} {a~stamped HIS foot}. "You put in salt!" {a.he} shouted. {b} {b:sad}.',
                "{a.His} face went green. It was salty as the sea. {a} {a:sad}, and {b} {b:surprised}.",
            ),
        ),
        page(
            (
                '{b} {b:sad}. "I only wanted to help," {b.he} said.',
                "{b} {b~sat down} under the table and {b~wept}.",
                '{b} {b~sat} quite still. "Now I have spoiled it all," {b.he} said {b:sad.ly}.',
            ),
            (
                '{a} took a deep breath. "It was a mistake," {a.he} said. "We will bake another one."',
                '{a} {a~sat down} beside {b.him}. "I once forgot the flour," {a.he} said. "Come, let us try again."',
                '{a} {a:sad} too, for {a.he} had been too loud. "Forgive me," {a.he} said.',
            ),
        ),
        page(
            (
                "{t:night} {ab} baked a new {cake}. This time {ab.they} tasted everything twice.",
                "So {ab} began again. {t:night}, the second {cake} was done.",
            ),
            (
                "{b} {b~yawned}, {a} {a~yawned}, and the last of the {FRUIT} went on top.",
                '{b} {b:sleepy}. "It smells of heaven," {b.he} said. {a} {a~smiled}.',
                "{a} {a:sleepy}, and {b} {b~sat} on the flour sack and licked the spoon.",
            ),
        ),
        page(
            (
                "{t:nextday} {ab} carried the {cake} {to:WHERE}. There was the birthday child, {c.new}.",
                "{t:nextday} {ab} {ab~marched} {to:WHERE}. The birthday child was {c.new}.",
            ),
            (
                '"Happy birthday!" called {ab}. {c} {c:surprised}.',
                '"Is that for me?" asked {c}. {c.He} {c:cheering}.',
                "{c} {c:surprised}. Nobody had ever made {c.him} a {cake} before.",
            ),
        ),
        page(
            (
                "{c} made a wish and blew out the candles on the {cake}. Puff!",
                "[{abc}|{abc.They}|{abc.friends}] {abc~sat} in a ring, and everyone had a big piece of {cake}.",
            ),
            (
                '"It is the best cake in the world," said {c}, {c:happy,waving.ing}. {b} {b~beamed}.',
                '"There is a story about this cake," said {a}, and {b} {b~giggled}.',
                '{b} {b~waved HIS spoon}. "No salt at all!" {b.he} said, and {a} {a~laughed}.',
            ),
        ),
        page(
            (
                "{t:dusk} there was only a crumb left, and {abc} shared it in three.",
                "{t:dusk} {c} hugged {ab}, one in each arm.",
            ),
            (
                '"Whose birthday is next?" asked {b}, {b:sleepy.ing}. "Yours!" said {a}.',
                '{a} {a~yawned}. "Baking is hard work," {a.he} said, "but eating is easy."',
                "{c} {c~waved} until {ab} were out of sight.",
            ),
            optional=True,
        ),
    ),
)

DRUM = Plot(
    name="the loud drum",
    titles=("The Loudest Drum", "Boom Goes {a}", "{a} and the Drum", "The Drum That Could Whisper"),
    cast="abc",
    values={"HOME": ("village", "garden"), "QUIET": ("forest", "beach", "mountain")},
    beats=(
        page(
            opening("oneday", "HOME"),
            (
                "{a.He} had a new {drum}. Boom, boom, boom! {a.He} {a~marched} round and round.",
                "{a.His} uncle had given {a.him} a {drum}, and {a.he} {a~marched} up and down with it. Boom, boom!",
            ),
        ),
        page(
            (
                "A window flew open. There was {b.new}.",
                "Next door lived {b.new}.",
            ),
            (
                '{b.He} {b:angry}. "I cannot sleep with that noise!" {a} {a:surprised}.',
                '"Stop that boom-boom-boom!" shouted {b}, {b:angry.ing}. {a} {a~blinked in surprise}.',
                '{b} {b~yawned}. "Please, not so loud," {b.he} said. But {a} did not hear.',
            ),
        ),
        page(
            (
                "So {a} took the {drum} and {a~walked} {to:QUIET}, where nobody lived.",
                '"Nobody likes my {drum}," said {a}. {a.He} {a~walked} {to:QUIET} all alone with the {drum}.',
            ),
            (
                "{a.He} {a~sat down} under the sky and {a:sad}.",
                "Boom, {a.he} went, very softly. {a.He} {a:sad}. It is no fun to play for stones.",
                "{a.He} {a~sat down} on it and {a:sad,angry}.",
            ),
        ),
        page(
            (
                "But somebody did live there. It was {c.new}.",
                "From behind a rock came {c.new}.",
            ),
            (
                '"What a lovely boom!" said {c}, {c:cheering.ing}. "Play it again!" {a} {a:surprised}.',
                '{c} {c~danced} on the spot. "Do not stop!" {c.he} said. {a} {a:surprised}.',
                '{c} {c~waved}. "I have a whistle. Shall we play together?" {c.he} asked.',
            ),
        ),
        page(
            (
                "{a} played the {drum}, and {c} played the whistle. Boom-boom-tweet!",
                "Boom-boom went the {drum}, and tweet went the whistle of {c}.",
            ),
            (
                "{c} {c~skipped} in a circle, and {a} {a~laughed}.",
                '"Not so fast!" said {c}. "Listen first, and then play." {a} {a~sat down} and listened.',
                '"You must leave room for the others," said {c}. {a} {a:surprised}, for that was new to {a.him}.',
            ),
        ),
        page(
            (
                "{t:dusk} the two could play soft and loud, slow and quick. {a} put down the {drum}, {a:happy,waving.ing}.",
                "{t:dusk} the song was ready. {ac} {ac:cheering}.",
            ),
            (
                '"I know someone who should hear this," said {a}. "But {b} is cross with me."',
                '{c} {c~yawned}. "Who shall we play it for?" {c.he} asked. {a} thought of {b}.',
            ),
            optional=True,
        ),
        page(
            (
                "{t:night} {ac} {ac~tiptoed} {to:HOME}. Behind the window {b} {b~sat} in bed, wide awake.",
                "{t:night} {ac} came back {to:HOME}. {b} {b~sat} on the doorstep, {b:sad.ing}.",
            ),
            (
                '"It is too quiet now," said {b} {b:sad.ly}. "I cannot sleep."',
                '"First it was too loud," said {b}, {b:angry.ing}, "and now it is too still!"',
            ),
        ),
        page(
            (
                "{a} touched the {drum} with one finger, soft as rain. {c} blew a long low note.",
                "Very, very softly {a} began to play the {drum}, and {c} hummed along.",
            ),
            (
                "{b} {b:surprised}. Then {b.his} eyes grew small, and {b.he} {b~yawned}.",
                '"Oh," said {b}, {b:surprised.ing}. "So it can whisper, too."',
                "{b} {b~sat down} and listened. {b.He} {b:sleepy}.",
            ),
        ),
        page(
            (
                "Soon {b} {b~dozed} with {b.his} head on the windowsill.",
                "Before the song was over, {b} {b~sat} there fast asleep, {b~dozing} like a baby.",
            ),
            (
                '"Good night," whispered {a}. {ac} {ac~tiptoed} away on soft feet.',
                "{a} {a~smiled}, {c} {c~waved}, and the moon looked on.",
                '{c} {c~yawned} too. "It works on me as well," {c.he} whispered, and {a} {a~giggled}.',
            ),
        ),
        page(
            (
                '{t:nextday} {b} knocked at the door. {b.He} held two pot lids. "May I play, too?" {b.he} asked.',
                '{t:nextday} it was {b} who came with two spoons. "Teach me," {b.he} said, {b:happy,waving.ing}.',
            ),
            (
                '"Of course!" said {a}. {a.He} {a:cheering}, and {c} {c:cheering}.',
                "{a} {a:surprised}, and then {a.he} {a~laughed} out loud.",
            ),
        ),
        page(
            (
                "Now there was a band {at:HOME}. {abc} {abc~marched} along with the {drum} in front.",
                "From then on, {t:dusk}, {abc} played {at:HOME}, with the {drum} and all.",
            ),
            (
                "{a} went boom, {b} went clang, {c} went tweet, and nobody was too loud.",
                '"Louder!" said {b}, {b:cheering.ing}. Who would have thought it?',
                "{a} {a~waved HIS drumstick}, and {b} {b:cheering}.",
            ),
        ),
    ),
)

PLOTS = (BOAT, CAKE, DRUM)
