"""Stories of a race, of a contest, and of a song without a voice."""

from data_tools.paper_theatre.plots.plot import Plot, opening, page

RACE = Plot(
    name="the slowest wins",
    titles=("The Slowest Wins", "The Great Race", "{a} Is Never in a Hurry", "Ready, Steady, Slow!"),
    cast="abc",
    values={
        "HOME": ("village", "meadow", "garden"),
        "GOAL": ("mountain", "beach", "snowfield"),
        "SNACK": ("cherry pie", "roast chestnuts", "pancakes", "cheese rolls"),
    },
    beats=(
        page(
            opening("oneday", "HOME"),
            (
                "{a.He} was the slowest of all. It took {a.him} a whole hour to drink a cup of tea, and {a.he} {a:happy}.",
                "Everybody else was quick, but {a} {a~sat} and looked at each flower. {a.He} was never in a hurry.",
            ),
        ),
        page(
            (
                "Past {a.him} came {b.new}.",
                "Round the corner shot {b.new}.",
            ),
            (
                '"I am the fastest in the land!" called {b}, {b:cheering,walking.ing}. "And you are a slowpoke!" {a} {a:sad}.',
                '{b.He} {b~raced} three times round {a}. "Slowpoke! I could beat you asleep!" {a} {a:angry}.',
            ),
        ),
        page(
            (
                '"Then let us race," said {a}. {b} {b:surprised}, and then {b.he} {b~laughed}.',
                '{b} {b~laughed} so hard that {b.he} {b~sat down}. "A race? With you?" {b.he} asked.',
            ),
            (
                "The goal was far away, and there was only one {map} of the road. {a} put it in {a.his} pocket.",
                '"You had better take the {map}," said {a}. But {b} did not want a {map}.',
            ),
        ),
        page(
            (
                '"Ready, steady, go!" {b} {b~ran} {to:forest} like the wind and was gone.',
                "One, two, three! {To:forest} {b} {b~raced}, and {b.his} feet hardly touched the ground.",
            ),
            (
                '{a} {a~strolled} in and said good morning to a snail. "Good morning," {a.he} said. "I am in a race."',
                "{a} {a~walked} behind, one step, and one step more, and tasted a blackberry on the way.",
            ),
        ),
        page(
            (
                "At a crossroads {a} looked {near:closely} at the {map}. Left, it said.",
                "There were two roads. {a} held the {map} {near:so close} to {a.his} nose that it tickled. Left, it said.",
            ),
            (
                "{b} had not read anything. {b.He} had {b~dashed} off to the right, {b:happy.ing}.",
                "But the footprints of {b} went to the right. {a} {a:surprised} and {a~walked} on to the left.",
            ),
        ),
        page(
            (
                "Behind a hedge {at:meadow}, {a} came upon {c.new}.",
                "{At:meadow} {a} met {c.new}.",
            ),
            (
                '"My cart is stuck," said {c}, {c:sad.ing}. "Have you no time to help?" {a} {a~smiled}. "I have nothing but time."',
                '{c} pulled at a cart full of {SNACK}, {c:angry.ing}. "Everybody is in such a hurry!" {a} {a~stopped} and pushed.',
            ),
        ),
        page(
            (
                '"Hop on," said {c}, when the wheels turned again. {a} {a~sat down} between boxes of {SNACK}.',
                "Then the cart rolled again, and {a} {a~sat} up at the front beside {c}.",
            ),
            (
                "{meanwhile:pond} the road that {b} had taken ended in the water. {b.He} {b:surprised,angry}.",
                '{meanwhile:pond} {b} {b~stopped} with a splash. "Where is the road?" {b.he} shouted, {b:angry.ing}.',
            ),
        ),
        page(
            (
                "{b} had to turn back. {At:pond} {b.he} had lost a shoe, and {b.he} {b:sad}.",
                "{b} was lost {at:pond}. {b.He} {b~ran} left and {b.he} {b~ran} right, wet to the knees.",
            ),
            (
                '"Has anyone a map?" {b.he} asked a beetle. The beetle had none.',
                'At last {b.he} {b~sat down}. "Running does not help," {b.he} said, {b:sad,sleepy.ing}.',
            ),
            optional=True,
        ),
        page(
            (
                "{t:dusk} the cart rattled {to:GOAL}. {a} {a~climbed} down, and {a.he} was the first!",
                "{T:dusk} {a} was {at:GOAL}. {a.He} had not run one step, and still {a.he} was first!",
            ),
            (
                "{c} {c:cheering}. {a} {a:surprised}.",
                '"The winner!" called {c}, {c:cheering,waving.ing}. {a} {a~blinked}. "Who? Me?"',
            ),
        ),
        page(
            (
                "{t:night} somebody came limping along in one shoe. It was {b}, and {b.he} {b:sleepy}.",
                "{t:night} {b} came at last, muddy up to the ears, and {b.he} {b:sad,sleepy}.",
            ),
            (
                '"You won," said {b}. "I am sorry I called you names." {a} gave {b.him} {SNACK}, and {c} {c~waved} with a spoon.',
                "{a} did not laugh. {a.He} put a blanket round {b}, and {c} {c~smiled} and brought {SNACK}.",
            ),
        ),
        page(
            (
                "{t:nextday} {ab} {ab~strolled} home {to:HOME} together, and it took until noon.",
                "{t:nextday} {ab} {ab~sat} {at:HOME} with a pot of tea, and drank it for a whole hour.",
            ),
            (
                '"I never saw so many flowers," said {b}, {b:surprised.ing}. "They were always there," said {a}.',
                '"Slow is nice," said {b}. {b.He} {b~jumped up} and {b~sat down} again. "But it is hard!" {a} {a~laughed}.',
            ),
        ),
    ),
)

CASTLE = Plot(
    name="the sandcastle contest",
    titles=("The Sandcastle Contest", "Two Castles and a Wave", "The Biggest Castle", "{a}, {b} and the Tide"),
    cast="abc",
    held_out=True,
    values={
        "PRIZE": ("golden spade", "box of toffees", "silver cup", "big brass bell"),
        "ROOF": ("sea glass", "mussel shells", "white feathers", "dry seaweed"),
    },
    beats=(
        page(
            opening("oneday", "beach"),
            (
                "On a post hung a sign: SANDCASTLE CONTEST TODAY. {a.He} {a:cheering}.",
                "{a.He} patted wet sand with both hands. Today was the contest, and {a.he} wanted to win. {a.He} {a:happy}.",
            ),
        ),
        page(
            (
                "Right beside {a.him} began {b.new}.",
                "Three steps away was {b.new}.",
            ),
            (
                '"This is my sand," said {b}, {b:angry.ing}. {a} drew a line between the two. {a.He} {a~frowned}. "And this is mine!"',
                '"Mine will be bigger than yours!" said {b}, {b:happy,waving.ing}. {a} {a:angry}. "We shall see!"',
            ),
        ),
        page(
            (
                "The judge was {c.new}.",
                "To judge the castles came {c.new}.",
            ),
            (
                '"The prize is a {PRIZE}," said {c}. {a} {a:surprised}, and {b} {b:cheering}. {ab.They} both wanted that!',
                '{c.He} {c~yawned}. "Wake me when you are done. The prize is a {PRIZE}." {a} {a:cheering}, and {b} {b:cheering}.',
            ),
        ),
        page(
            (
                "{a} filled the {basket} with sand and turned it over, once, twice, ten times.",
                "A tower, a gate, a tower! {a} {a~ran} back and forth with a {basket} of {ROOF}.",
            ),
            (
                "{b} dug a deep moat round the walls, and {b.he} {b:happy}. Neither looked up.",
                '"Mine is taller," said {b}, {b:happy,waving.ing}. "Mine is wider," said {a}, {a:angry.ing}.',
            ),
        ),
        page(
            (
                "Soon there was only one {basket} of {ROOF} left, and {ab} reached for it at once.",
                "One last handful of {ROOF} lay in the {basket}. {ab} reached for it at the same time.",
            ),
            (
                "[{ab}|{ab.They}] {ab~scowled}, {near:nose to nose}. Nobody let go.",
                '"Give it to me!" said {a}, {a:angry.ing}. {b} {b~stamped HIS foot}, {near:face to face} with {a}.',
            ),
        ),
        page(
            (
                "While they quarrelled, a wave came in. {a} {a~gasped}. Half of the tower was gone!",
                '"Look out!" shouted {c}, {c:waving.ing}. {a} {a:surprised}. The sea was at the gate!',
            ),
            (
                "{b} piled up a wall of sand, and the next wave washed it away. {b.He} {b:sad}.",
                '"My moat!" {b} {b~stared}. Now it was a part of the sea.',
            ),
        ),
        page(
            (
                '{a} looked at {b}. "Your moat is good," said {a}, "and my towers are good. Together?"',
                '"One castle is better than none," said {b}. {a} {a~stopped}. Then {a.he} gave {b.him} the {basket}.',
            ),
            (
                "[{ab}|{ab.They}|{ab.friends}] {ab~ran} up the sand to a dry place and began again.",
                "Off {ab.they} {ab~hurried}, away from the water, with the {basket} between them.",
            ),
        ),
        page(
            (
                "{t:dusk} there it was, the biggest castle of all, and it had {ROOF} on every roof.",
                "{T:dusk} {ab} put the last bit of {ROOF} on the highest tower and {ab~cheered}.",
            ),
            (
                "The sand shone red {wide:as far as the eye could see}. {a} {a~sat down}, and {b} {b:sleepy}.",
                "From its top the gulls looked {wide:no bigger than ants}. {a} {a:sleepy}, and {b} {b:happy}.",
            ),
        ),
        page(
            (
                "{c} {c~walked} round it with {c.his} hands on {c.his} back. [{ab}|{ab.They}] {ab~waited}.",
                '{c} {c~strolled} round it twice. "Hm," {c.he} said, and then again, "hm!" {a} took the hand of {b}.',
            ),
            (
                '"I have only one prize," {c.he} said. {c.He} {c:surprised}. "But I see only one castle!"',
                '"It is a pity," said {c}, {c:sleepy.ing}, "that there are two of you and one {PRIZE}." {b} {b~laughed}. "We share!"',
            ),
        ),
        page(
            (
                "{t:night} the tide came up again and took the castle, tower by tower.",
                "{t:night} the sea took the castle back, {at:beach}, quite gently.",
            ),
            (
                "But {ab} {ab~sat} on the post, shared the prize and {ab~laughed}.",
                '"Goodbye, castle!" called {a}, {a:waving.ing}. {b} {b:sleepy}. "Tomorrow," {b.he} said, "we build a town."',
            ),
        ),
    ),
)

VOICE = Plot(
    name="the lost voice",
    titles=("The Lost Voice", "{a} Has Lost Something", "Not a Word", "The Song without Words"),
    cast="ab",
    values={
        "HOME": ("garden", "village", "meadow"),
        "STAGE": ("forest", "pond", "beach"),
        "TEA": ("honey and lemon", "elder syrup", "thyme and honey", "hot blackcurrant juice"),
    },
    beats=(
        page(
            opening("oneday", "HOME"),
            (
                "{a.He} had the finest voice of all, and {a.he} sang from breakfast to supper. {a.He} {a~danced} as {a.he} sang.",
                '"La, la, la!" {a.he} sang at the top of {a.his} voice, and {a.he} {a~skipped}. Tomorrow was the big concert.',
            ),
        ),
        page(
            (
                'But {t:nextday} {a} opened {a.his} mouth and out came "kh".',
                "{t:nextday} {a} opened the window to sing. Not a sound came out.",
            ),
            (
                "{a.He} tried it louder. Nothing! {a.He} {a:surprised}.",
                "The voice was gone. {a.He} looked for it under the pillow, {a:sad.ing}.",
            ),
        ),
        page(
            (
                "Then came {b.new}.",
                "At the gate was {b.new}.",
            ),
            (
                '"Good morning!" said {b}, {b:waving.ing}. {a} waggled {a.his} arms. "A bee?" asked {b}. "You saw a bee?" {a} {a:angry}.',
                '{a} pointed at {a.his} neck. "A necklace?" asked {b}, {b:surprised.ing}. "You want a necklace?" {a} {a~stamped HIS foot}.',
            ),
        ),
        page(
            (
                "{a} drew a note in the sand, and then {a.he} drew a line through it. {b} bent down to look {near:closely}.",
                "{a} opened {a.his} mouth as wide as it would go. {b} came {near:so close} that {b.his} nose nearly fell in.",
            ),
            (
                '"Your voice!" {b} {b~gasped}. "It is lost!" {a} nodded, {a:sad.ing}.',
                '"I see!" said {b}. "Or rather, I hear. I hear nothing!" {b.He} {b:sad}, and {a} {a:sad}.',
            ),
        ),
        page(
            (
                "So {ab} went to look for the voice. {b} took a {basket} to put it in, and {ab.they} {ab~walked} {to:forest}.",
                '"What is lost can be found," said {b}. [{ab}|{ab.They}|{ab.friends}] {ab~tiptoed} {to:forest} with a {basket}.',
            ),
            (
                'Something sang in a tree. "There it is!" called {b}, {b:cheering,waving.ing}. But it was only a robin.',
                '"Is it here?" {b} asked a hollow log. "Here, here," said the log. {b} {b:surprised}.',
            ),
        ),
        page(
            (
                "{a} {a~sat down} on the {basket}. No voice in it, not even a small one.",
                "Not one voice lay in the {basket}, only pine cones. {a} {a~sat} on a stone.",
            ),
            (
                'Who was {a.he} without a song? {a.He} {a:sad}. "You are still you," said {b}.',
                '{a.He} {a~wept} without a sound. {b} gave {a.him} {b.his} hanky. "It has cherries on it," {b.he} said.',
            ),
        ),
        page(
            (
                "{b} made {TEA} for {a} {at:kitchen}, and wound a scarf round {a.his} neck.",
                "Back {at:kitchen}, {b} put a cup of {TEA} in front of {a}. It smelled of summer.",
            ),
            (
                '"Now hush," said {b}. {a} {a~sat} still and hushed. For the first time {a.he} heard the clock, and the rain.',
                '"A voice comes back when all is quiet," said {b}. {a} {a~sat} there and listened, {a:sleepy.ing}.',
            ),
        ),
        page(
            (
                "{t:dusk} all the chairs {at:STAGE} were full, for nobody had heard the news. {a} {a:sad}.",
                "{t:dusk} lights hung {at:STAGE}, and the whole town was there. {a} {a~stopped} behind the curtain.",
            ),
            (
                '"I will be your voice," said {b}. {b.He} took the {drum}, {b:happy.ing}.',
                "{b} took a deep breath and a {drum}. {b.He} could not sing at all, but {b.he} was a friend.",
            ),
        ),
        page(
            (
                "{b} beat the {drum} and sang, as well as {b.he} could. {a} {a~danced} the whole song with hands and feet.",
                'Boom went the {drum}. "La!" croaked {b}, and {a} {a~danced} to it like a leaf in the wind.',
            ),
            (
                "It was so funny and so lovely that everybody clapped. {b} {b~beamed}.",
                '"More!" they called. {b} {b:surprised}. "They mean you," {b.he} whispered to {a}.',
            ),
        ),
        page(
            (
                '"Thank you," said {a}. {a.He} {a~gasped}. It was small and rough, but it was {a.his} voice!',
                'Then there was a tiny "la". {b} {b:surprised}. It came from {a}!',
            ),
            (
                '"It was hiding from the noise," said {b}, {b:happy,waving.ing}.',
                '"There you are," said {a} to {a.his} voice, and {a.he} {a~laughed}. {b} {b:cheering}.',
            ),
            optional=True,
        ),
        page(
            (
                "{t:nextday} {a} sang again {at:HOME}, but only until lunch.",
                "{t:nextday} there was singing again {at:HOME}. {a} sang high, and {b} sang low.",
            ),
            (
                'After that {a.he} {a~sat} with {b} and listened. "What do you hear?" asked {b}. "Everything," said {a}.',
                '"And now a quiet song," said {a}. [{ab}|{ab.They}] {ab~sat} side by side and listened to the bees.',
            ),
        ),
    ),
)

PLOTS = (RACE, CASTLE, VOICE)
