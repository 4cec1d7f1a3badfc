"""Stories of bedtime, snow and rain."""

from data_tools.paper_theatre.plots.plot import Plot, opening, page

SLEEPLESS = Plot(
    name="a friend who cannot sleep",
    titles=("{a} Cannot Sleep", "One More Story", "The Longest Yawn", "Good Night, {a}"),
    cast="ab",
    values={
        "OUT": ("garden", "meadow", "pond", "forest", "snowfield", "beach"),
        "DRINK": ("warm milk", "mint tea", "cocoa", "hot apple juice"),
        "HERO": ("a brave little snail", "a whale who could sing", "the king of the ants", "a cloud who lost its way"),
    },
    beats=(
        page(
            opening("onenight", "bedroom"),
            (
                "{a.He} {a~sat} in bed with wide open eyes and {a:sad,angry}.",
                "{a.He} turned left, and {a.he} turned right. No sleep came, and {a.he} {a:angry}.",
                "{a.He} {a~walked} round and round the bed and {a:sad,angry}.",
            ),
        ),
        page(
            (
                "{a} counted sheep, but the sheep made so much noise.",
                "{a} closed {a.his} eyes. One popped open, and then the other.",
                "{a} lay on {a.his} back, on {a.his} side and on {a.his} tummy.",
            ),
            (
                '"Stupid pillow!" {a.he} said {a:angry.ly}, and {a.he} threw it out of bed.',
                "{a.He} {a:angry} and kicked off the blanket.",
                '"Everybody sleeps but me," {a.he} said {a:sad.ly}.',
            ),
        ),
        page(
            (
                "Then the door opened. It was {b.new}.",
                "In came {b.new}.",
            ),
            (
                '"Are you still awake?" asked {b}, {b:sleepy.ing}. {a} {a:sad,angry}.',
                "{b} {b~sat down} on the bed and {b~yawned}. {a} {a~sat} beside {b.him}.",
                '"I heard a thump," said {b}, {b:surprised.ing}. "That was my pillow," said {a}.',
            ),
        ),
        page(
            (
                '"What you need is {DRINK}," said {b}. {ab} {ab~tiptoed} {to:kitchen}.',
                "[{ab}|{ab.They}|{ab.friends}] {ab~tiptoed} down the stairs and {to:kitchen}, to make {DRINK}.",
            ),
            (
                "{a} {a~sat} at the table, and {b} {b~sat} across from {a.him}. Sip, sip.",
                "{b} {b~yawned}. {a} drank it all and {a~grinned}. {a.He} was more awake than ever.",
                '"More?" asked {b}. "More!" said {a}, {a:cheering.ing}.',
            ),
        ),
        page(
            (
                "[{ab}|{ab.They}|{ab.friends}] went out {to:OUT} to look at the sky.",
                '"Fresh air helps," said {b}. So {ab} {ab~strolled} {to:OUT}.',
            ),
            (
                "{a} {a~waved} to the moon, and {b} {b~waved} too.",
                "A falling star! {a} {a:surprised}. {b} {b:cheering}.",
                '"The moon cannot sleep either," said {a}, {a:happy,waving.ing}. {b} {b:sleepy}.',
            ),
        ),
        page(
            (
                "{a} found a {ball} in the dark and wanted to play.",
                '"Now I want to play with the {ball}!" said {a}. {a.He} {a~ran} in circles.',
            ),
            (
                '"Not at night!" {b} {b:angry}. "Look, even the wind has gone to bed."',
                "{b} {b~sat down} on the ground, {b:sleepy.ing}.",
                '{b} {b~grumbled}. "My legs are asleep already," {b.he} said. {a} {a~laughed}.',
            ),
            optional=True,
        ),
        page(
            (
                "Back {at:bedroom}, {b} took a big {book} from the shelf and {b~sat down}.",
                '"Then I shall read to you," said {b}. {at:bedroom} {b.he} {b~sat down} with a {book}.',
            ),
            (
                "It was about {HERO}. {a} {a:surprised}.",
                '"Once there was {HERO}," {b.he} read. {a} {a~sat} very close.',
            ),
        ),
        page(
            (
                "{b} read of storms and of high towers. {a} {a:surprised}.",
                "{b} turned page after page of the {book}. {a} {a:cheering} when it all came right.",
            ),
            (
                '"Go on!" said {a}. "Do not stop now!" {b} {b:sleepy}.',
                "{b} read more and more slowly, {b:sleepy.ing}.",
                "Slowly {b.his} voice grew soft, and {b.he} {b:sleepy}.",
            ),
        ),
        page(
            (
                "Then it was very still. The {book} slid to the floor. {b} {b~dozed}.",
                "In the middle of a word {b} {b~dozed}, {b~sitting} up straight.",
            ),
            (
                '{a} {a~blinked}. "And then?" {a.he} asked. "What then?"',
                '{a} {a~giggled}. "Now I must put you to bed," {a.he} said.',
                '{a} {a:surprised}. "I was the one who could not sleep!" {a.he} said.',
            ),
        ),
        page(
            (
                "{a} put the blanket over {b} and read the last page of the {book} alone.",
                '"Good night," whispered {a}, and {a.he} put out the light. {b} {b~dozed}.',
            ),
            (
                "Then {a.he} {a~yawned}, a yawn as wide as a door.",
                "{a.He} {a~yawned}, once, twice, three times. And that was all.",
                "All at once {a.he} {a:sleepy}. The pillow was not stupid at all.",
            ),
        ),
        page(
            (
                "{t:nextday} the sun shone into {the:bedroom}. {a} {a~jumped} out of bed.",
                "{t:nextday} {b} woke up {at:bedroom}, and there was a blanket round {b.him}.",
            ),
            (
                '"Good morning!" said {a}, {a:waving.ing}. "How does the story end?" asked {b}.',
                '"Did I fall asleep?" asked {b}, {b:surprised.ing}. {a} {a~laughed} and {a~waved HIS slippers}.',
            ),
        ),
    ),
)

SNOW = Plot(
    name="lost in the snow",
    titles=("Lost in the Snow", "The Red Balloon", "{a} Finds the Way Home", "A Very White Day"),
    cast="abc",
    values={"HOME": ("kitchen", "bedroom"), "FOOD": ("soup", "baked apples", "pancakes", "hot chocolate")},
    beats=(
        page(
            opening("oneday", "HOME"),
            (
                'White flakes fell past the window. "Snow!" {a.he} called, and {a.he} {a~jumped for joy}.',
                "{a.He} looked out and {a~gasped}. The whole world was white!",
            ),
        ),
        page(
            (
                "{a} {a~ran} {to:snowfield}. There was {b.new}.",
                "{at:snowfield} {a} met {b.new}.",
            ),
            (
                '{b} had a red {balloon} on a string. "Catch me!" {b.he} called, {b:waving.ing}.',
                "{b} {b~waved} a red {balloon}. {a} {a:happy}.",
                "{b.He} {b:angry}, for {b.his} feet were cold, but {b.he} had a red {balloon}.",
            ),
        ),
        page(
            (
                "[{ab}|{ab.They}|{ab.friends}] made a snow king with a carrot nose.",
                "[{ab}|{ab.They}|{ab.friends}] threw snowballs and made angels in the snow.",
            ),
            (
                'Then {b} {b~sat down} in the snow. "I am a snow king, too," {b.he} said.',
                "{a} {a~danced} around, and {b} {b~laughed}.",
                "Splat! A snowball hit {a} on the nose. {a} {a:angry,surprised}, and {b} {b~giggled}.",
            ),
        ),
        page(
            (
                "{t:dusk} it snowed harder and harder. {a} looked for the way and saw only white.",
                "{t:dusk} the wind blew, and all the footprints were gone. {a} looked round and round.",
            ),
            (
                '"Which way is home?" asked {b}, {b:sad.ing}. {a} did not know.',
                '{b} {b:sad}. "I cannot see my own hands," {b.he} said.',
                '"You said you knew the way!" {b} {b:angry}. {a} {a:sad}.',
            ),
        ),
        page(
            (
                "[{ab}|{ab.They}|{ab.friends}] {ab~walked} for a long time. Then there was the snow king again.",
                "[{ab}|{ab.They}|{ab.friends}] {ab~walked} on and on, hand in hand, and came back to the same tree.",
            ),
            (
                '"We go in circles," said {a}, {a:sad.ing}. {b} {b~yawned}.',
                '{b} {b~sat down}. "I am so sleepy," {b.he} said. {a} pulled at {b.his} arm.',
                "{a} {a~stamped HIS foot}, and {b} {b:sad}.",
            ),
        ),
        page(
            (
                "Then {a} had an idea. {a.He} tied the red {balloon} to a stick and held it high.",
                '"Somebody must see us," said {a}. {a.He} let the {balloon} up on its long string.',
            ),
            (
                '"Help!" called {b}, {b:waving.ing}. "Here we are!"',
                "[{ab}|{ab.They}|{ab.friends}] {ab~waved} and {ab~waved}, until {ab.their} arms were sore.",
                "{b} {b~jumped up and down} to keep warm.",
            ),
        ),
        page(
            (
                "Far away somebody saw a red dot. It was {c.new}.",
                "The red dot was seen by {c.new}.",
            ),
            (
                "{c} {c~ran} through the deep snow with a {lantern} in {c.his} hand.",
                '"What is a balloon doing out here?" {c.he} asked, {c:surprised.ing}. Then {c.he} took a {lantern}.',
                '{c} {c:surprised}. "A balloon in a storm?" {c.he} said, and lit a {lantern}.',
            ),
        ),
        page(
            (
                "{t:night} {ab} saw a small light. It came closer, and behind it came {c}.",
                "{t:night} {c} found {ab} under the {balloon}.",
            ),
            (
                '"You clever children!" said {c}, {c:waving.ing}. {b} {b:cheering}.',
                "{a} {a:cheering}. {b} {b~blinked} into the light.",
                '"You are as cold as fish!" said {c}, {c:angry.ing}. {b} {b:sleepy}.',
            ),
        ),
        page(
            (
                "{c} carried {b}, and {a} {a~walked} in {c.his} footprints with the {lantern}.",
                "[{abc}|{abc.They}|{abc.friends}] {abc~walked} home, and the {lantern} threw a yellow ring on the snow.",
            ),
            (
                '"Sing, so that nobody falls asleep!" said {c}. {a} sang, {a:sleepy.ing}.',
                '{b} {b:sleepy}. "Are we there yet?" {b.he} asked.',
                '"Left foot, right foot," said {c}. {a} {a:sleepy}.',
            ),
            optional=True,
        ),
        page(
            (
                "At last {abc} were warm and dry {at:HOME}. {c} made {FOOD}.",
                "What joy to be {at:HOME}! {abc} {abc~sat} close together and had {FOOD}.",
            ),
            (
                '{b} {b~sat} under three blankets. "My toes are back," {b.he} said.',
                "{b} {b~dozed} with the spoon in {b.his} hand, and {a} {a~smiled}.",
                '"You waited for me," said {b} to {a}. {b.He} {b:happy}.',
            ),
        ),
        page(
            (
                "{t:nextday} {abc} {abc~marched} {to:snowfield}, where the snow king shone in the sun.",
                "{t:nextday} {abc} put red ribbons on every tree {at:snowfield}.",
            ),
            (
                '"Now nobody will ever be lost here," said {a}, {a:happy.ly}. {b} {b:cheering}.',
                "{c} {c~waved}, {b} {b~sat down} in the snow, and {a} {a~laughed}.",
                "{a} tied the {balloon} to the king, and {bc} {bc:cheering}.",
            ),
        ),
    ),
)

RAIN = Plot(
    name="one umbrella for two",
    titles=("One Umbrella for Two", "Drip, Drop", "The Rainy Day", "{a} and {b} in the Rain"),
    cast="ab",
    values={
        "HOME": ("village", "garden", "meadow"),
        "WAY": ("forest", "beach"),
        "COLOUR": ("red", "green", "spotted", "blue", "striped"),
    },
    beats=(
        page(
            opening("oneday", "HOME"),
            (
                "{a.He} had a brand new {COLOUR} {umbrella} and wished for rain. {a.He} {a~sat} and looked at the sky.",
                '"Rain, rain, come!" {a.he} called. {a.He} {a~waved} a brand new {COLOUR} {umbrella}.',
            ),
        ),
        page(
            (
                "Drip. Drop. It rained! {a} {a:cheering} and opened the {umbrella}.",
                "Then a drop fell on {a.his} nose. {a} {a:cheering}. Up went the {umbrella}!",
            ),
            (
                "{a.He} {a~marched} through every puddle. Splish, splash!",
                '"Not one drop on me," {a.he} said {a:happy.ly}.',
            ),
        ),
        page(
            (
                "{a} {a~strolled} {to:WAY}. Under a leaf was {b.new}.",
                "{to:WAY} {a} {a~skipped}. There was {b.new}.",
            ),
            (
                "{b} was wet through and through, and {b.he} {b:sad,angry}.",
                '"I hate rain," said {b}, {b:angry.ing}. {a} {a:surprised}.',
                "{b} {b~sat} in a puddle, {b:sad.ing}.",
            ),
        ),
        page(
            (
                '"Come under the {umbrella}," said {a}. "There is room for two."',
                "{a} thought for a while. Then {a.he} held the {umbrella} over {b}.",
            ),
            (
                '{b} {b:surprised}. "For me?" {b.he} asked. "But then you get wet, too!"',
                '"Really?" asked {b}, {b:surprised.ing}. {a} {a~smiled}.',
            ),
        ),
        page(
            (
                "But the {umbrella} was small. {a} had a wet left arm, and {b} had a wet right arm.",
                "[{ab}|{ab.They}|{ab.friends}] {ab~walked} on, but the {umbrella} was too small for two tails.",
            ),
            (
                '"You push!" said {b}, {b:angry.ing}. "No, you push!" said {a}, {a:angry.ing}.',
                '{b} {b:angry}. "My side is dripping," {b.he} said. {a} {a:angry}.',
                "{a} {a:angry}, and {b} {b~scowled}.",
            ),
        ),
        page(
            (
                "And then came a great gust, and whoosh, the {umbrella} flew away! {a} {a:surprised}.",
                "While {ab} pushed and pulled, the wind took the {umbrella} and carried it off.",
            ),
            (
                "[{ab}|{ab.They}|{ab.friends}] {ab~ran} after it as fast as the wind.",
                '"Catch it!" shouted {b}, and {b.he} {b~ran}. {a} {a~ran} even faster.',
            ),
        ),
        page(
            (
                "At last {ab} came {to:pond}. There swam the {umbrella}, upside down, like a little bowl.",
                "Splash! The {umbrella} landed upside down on the water. {ab} came {to:pond}, out of breath.",
            ),
            (
                "{b} {b:surprised}, and {a} {a:sad}.",
                '"It is gone," said {a}, {a:sad.ing}. {b} {b:sad} as well.',
                "{a} {a~sat down} and {a~wept}. {b} did not know what to say.",
            ),
        ),
        page(
            (
                '"It looks like a boat," said {b}. Then {b.he} {b~giggled}.',
                '"It is not an umbrella now," said {b}, {b:happy,waving.ing}. "It is a ship!"',
            ),
            (
                "[{ab}|{ab.They}|{ab.friends}] {ab~sat} in the {umbrella} and rowed with {ab.their} hands. {a} {a:cheering}.",
                '{a} {a~laughed}. "All aboard!" {a.he} said, and {ab.they} {ab~sat down} in the {umbrella}.',
            ),
        ),
        page(
            (
                "Round and round {ab} went, wet from nose to toes, and it did not matter at all.",
                "The rain fell on {a}, and the rain fell on {b}, and it was warm and soft.",
            ),
            (
                "{a} {a~waved} to a duck. {b} {b~waved} to a snail.",
                '"I love rain," said {b}, {b:cheering.ing}. {a} {a:surprised}.',
            ),
            optional=True,
        ),
        page(
            (
                "{t:dusk} the clouds opened, and there was a rainbow. {a} {a:surprised}.",
                "{t:dusk} the last drop fell. {ab} {ab~sat} on the bank and saw a rainbow.",
            ),
            (
                '"Look," said {b}, {b:sleepy.ing}. "It is an umbrella for everyone."',
                '{b} {b~threw up HIS arms}. "An umbrella as big as the sky!" {b.he} said.',
                "{b} {b~yawned} and put {b.his} head on {a.his} shoulder.",
            ),
        ),
        page(
            (
                "{t:nextday} {ab} built a bigger {umbrella} {at:HOME}, out of two old ones.",
                "{t:nextday} {b} came {to:HOME} with a needle, and the {umbrella} grew a second roof.",
            ),
            (
                '"Room for two," said {a}, {a:happy,waving.ing}. "Room for ten!" said {b}.',
                "[{ab}|{ab.They}|{ab.friends}] {ab~sat} under it and wished for rain.",
                "{b} {b~waved} at the clouds, and {a} {a:cheering}.",
            ),
        ),
    ),
)

PLOTS = (SLEEPLESS, SNOW, RAIN)
