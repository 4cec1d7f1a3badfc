"""Stories of a shadow, of a voice in the rocks, and of a present that changed six times."""

from data_tools.paper_theatre.plots.plot import Plot, opening, page

MONSTER = Plot(
    name="the monster on the wall",
    titles=("The Monster on the Wall", "Who Goes Scritch?", "Brave in the Dark", "{a}, {b} and the Three-Headed Thing"),
    cast="abc",
    values={
        "SOUND": ("scritch, scratch", "knick, knack", "creak, crack", "flip, flap"),
        "TREAT": ("cheese", "honey bread", "gingerbread", "a cold dumpling"),
        "ROOM": ("village", "garden", "meadow"),
    },
    beats=(
        page(
            opening("onenight", "bedroom"),
            (
                "{a.He} lay in bed and could not sleep. {SOUND}, said something. {a.He} {a:surprised}.",
                "The light was out. On the wall was a shadow with three heads! {a.He} {a:surprised}.",
            ),
        ),
        page(
            (
                "{a} pulled the blanket up to {a.his} nose. The thing on the wall moved!",
                "It had horns, it had a belly, and it said {SOUND}.",
            ),
            (
                '"Go away, please," {a.he} whispered {a:sad.ly}. It did not go away.',
                "{a} {a~crept} out of bed, out of the door and over the cold, dark grass.",
            ),
        ),
        page(
            (
                "Next door lived {b.new}. {a} {a~ran} there in bare feet.",
                "{a} {a~ran} {to:ROOM} and knocked. Out came {b.new}.",
            ),
            (
                '"A monster?" {b} {b~yawned}. "I am not afraid of monsters."',
                '{b} {b:sleepy}. "I eat monsters for breakfast," {b.he} said.',
            ),
        ),
        page(
            (
                "[{ab}|{ab.They}|{ab.friends}] {ab~tiptoed} {to:bedroom}. {b} went first, and then {b.he} let {a} go first.",
                "Back {at:bedroom}, {b} looked at the wall. Three heads!",
            ),
            (
                '"I am not afraid of small monsters," whispered {b}, {b:surprised.ing}. "This is a big one."',
                "[{ab}|{ab.They}|{ab.friends}] held on to each other, {near:cheek to cheek}. {SOUND}!",
            ),
        ),
        page(
            (
                "{a} had a {lantern} under the bed. {a.He} stretched out one arm for it.",
                '"We need light," said {a}. {a.He} felt under the bed for the {lantern}.',
            ),
            (
                '"I am right behind you," said {b}, {b:sad.ing}. {a} {a~stood} there all alone.',
                "{b} {b~sat} under the table by now. {a} {a:sad}, but {a.he} did it.",
            ),
        ),
        page(
            (
                "Click! The {lantern} went on. There stood a chair with an {umbrella} on it, and that was all.",
                "In the light of the {lantern} the monster shrank. It was an {umbrella} on a coat stand!",
            ),
            (
                "{a} {a~giggled}. {b} came out from under the table and {b:happy}.",
                '"I knew it all along," said {b}, {b:happy,surprised.ing}. {a} {a~laughed}.',
            ),
        ),
        page(
            (
                "But what was that? {SOUND}! Umbrellas do not do that. {a} {a~stopped}.",
                "Then it came again, from behind the door. {SOUND}! {a} {a:surprised}.",
            ),
            (
                "{b} {b~jumped} into the arms of {a}.",
                "{b} blew at the flame by mistake, and it was dark again. {b.He} {b:surprised}.",
            ),
            optional=True,
        ),
        page(
            (
                "{a} {a~crept} {to:kitchen}, and {b} {b~crept} behind {a.him}. There was a shape at the cupboard!",
                "The noise came from below. [{ab}|{ab.They}|{ab.friends}] {ab~tiptoed} down {to:kitchen}.",
            ),
            (
                '"Monster, come out!" called {a}. {a.His} knees shook. {b} {b:sad}.',
                "{a} held up a spoon. {b} {b~stamped HIS foot}, but very softly.",
            ),
        ),
        page(
            (
                "Out of the dark came {c.new}.",
                "It was no monster. It was {c.new}.",
            ),
            (
                '"Please do not eat me," said {c}, {c:sad.ing}. {a} {a:surprised}. "We thought you would eat us!"',
                '{c.He} had {TREAT} in {c.his} hand, and {c.he} {c:surprised}. "Are you monsters?" {c.he} asked.',
            ),
        ),
        page(
            (
                '"I could not sleep," said {c}, "because I was so hungry." {a} {a~laughed}.',
                '"I heard {SOUND}, and it was my own tummy," said {c}, {c:sad.ing}. {a} {a:happy}.',
            ),
            (
                "So {abc} {abc~sat} round the table {at:kitchen} and ate {TREAT} until {b} {b~dozed}.",
                "{a.He} shared {TREAT} in three. {b} {b:cheering}, {c} {c~sat down}, and nobody was afraid.",
            ),
        ),
        page(
            (
                "{t:night} {abc} lay in one big bed {at:bedroom}. The {umbrella} made a shadow with three heads.",
                "Back {at:bedroom}, {abc} held their hands before the {lantern}. There were three heads on the wall!",
            ),
            (
                '"That is us," said {a}, {a:sleepy.ing}. {c} {c~waved}, and so did the shadow.',
                '"Good night, monster," said {b}, {b:sleepy.ing}. {SOUND}, went the tummy of {c}. {a} {a~giggled}.',
            ),
        ),
    ),
)

ECHO = Plot(
    name="the voice in the rocks",
    titles=("The Voice in the Rocks", "{a} and the Echo", "Hello, Hello!", "Who Shouts Back?"),
    cast="abc",
    held_out=True,
    values={
        "HOME": ("village", "meadow", "forest"),
        "GIFT": ("plum jam", "a walnut", "a woollen sock", "a bunch of daisies"),
        "BAD": ("Silly", "Meanie", "Copycat", "Blockhead"),
    },
    beats=(
        page(
            opening("oneday", "mountain"),
            (
                '{a.He} felt so fine that {a.he} shouted "Hello!" And somebody shouted back "Hello!" {a.He} {a:surprised}.',
                '"Is anybody there?" {a.he} called. "There, there," said a voice in the rocks. {a.He} {a:surprised}.',
            ),
        ),
        page(
            (
                '"Come out!" called {a}. "Out!" said the voice. {a} looked behind every stone.',
                '{a} {a~ran} to the left. {a.He} {a~ran} to the right. "Where are you?" "You," said the voice.',
            ),
            (
                'Nobody! {a.He} {a:angry}. "{BAD}!" {a.he} shouted. "{BAD}!" it shouted back.',
                '"You are rude!" {a.he} called, {a:angry.ing}. "Rude!" said the voice.',
            ),
        ),
        page(
            (
                "{a} {a~ran} {to:HOME}, as fast as {a.he} could. There was {b.new}.",
                "Down {at:HOME}, {a} told it to {b.new}.",
            ),
            (
                '"It called me {BAD}!" said {a}, {a:sad,angry.ing}. {b} {b:angry}. "We will see about that."',
                '{b} took a {drum} under {b.his} arm. "Nobody calls my friend {BAD}," {b.he} said {b:angry.ly}.',
            ),
        ),
        page(
            (
                "[{ab}|{ab.They}|{ab.friends}] {ab~marched} {to:mountain} with the {drum}. The land lay {wide:far, far below}.",
                "High up {at:mountain} {b} hit the {drum}. Boom! It rang {wide:all across the land}.",
            ),
            (
                '"We are here!" shouted {b}, {b:angry.ing}. "Here, here!" {a} {a:surprised}.',
                '"Boom," said the rocks. "It has a drum, too!" said {a}, {a:surprised.ing}. {b} {b:angry}.',
            ),
        ),
        page(
            (
                '"{BAD}!" shouted {b}. "{BAD}! {BAD}!" came from all sides.',
                '"Stop it!" shouted {a} and {b} as loud as they could. "It, it, it," said the voice.',
            ),
            (
                "There were so many voices! {b} {b~sat down}, and {a} {a:sad}.",
                "{b} {b~stamped HIS foot}. The rocks did the same. {a} {a:sad}.",
            ),
        ),
        page(
            (
                "Up the path came {c.new}.",
                "On a flat stone was {c.new}.",
            ),
            (
                '"What a noise," said {c}, {c:sleepy.ing}. "Somebody is rude to us!" said {b}, {b:angry.ing}.',
                '{c} {c~sat down} and put {c.his} fingers in {c.his} ears. "Who began?" {c.he} asked. {a} {a:sad}.',
            ),
        ),
        page(
            (
                '"Come here," said {c} to {a}, {near:so close} that nobody else could hear it.',
                "{c} bent down to {a}, {near:nose to nose}.",
            ),
            (
                '"It gives back what you give it," {c.he} whispered. "Try something kind." {a} {a:surprised}.',
                '"Say to it what you would like to hear," said {c}, {c:happy,waving.ing}. {a} {a:surprised}.',
            ),
        ),
        page(
            (
                '{t:dusk} {a} cupped {a.his} hands. "I am sorry!" {a.he} called. "Sorry," said the rocks, quite softly.',
                'So {t:dusk} {a} called: "You have a lovely voice!" "Lovely voice," it said.',
            ),
            (
                '{a} {a:happy}, and {b} {b:surprised}. "It is nice after all," {b.he} said.',
                '{b} {b~jumped}. "Friends?" {b.he} called. "Friends, friends," said the rocks. {a} {a:happy}.',
            ),
        ),
        page(
            (
                "{t:night} {abc} {abc~sat} round a {lantern} {at:mountain} and sang.",
                "{t:night} {c} lit a {lantern}. {abc} {abc~sat down} and sang in a round.",
            ),
            (
                "And the rocks sang along, second voice and third. {b} {b:sleepy}.",
                "It was a choir of a hundred. {a} {a~yawned}, and {c} {c~waved} to the dark.",
            ),
        ),
        page(
            (
                "{t:nextday} {a} put down {GIFT} {at:mountain} in front of the rocks.",
                "{t:nextday} {ab} brought {GIFT} {to:mountain} for the voice.",
            ),
            (
                '"Thank you!" {a.he} called, {a:waving.ing}. "You," said the voice. {b} {b:happy}.',
                '"Hello, friend!" called {a}, {a:waving,cheering.ing}. "Friend," it said. {a} knew that voice. It was {a.his} own.',
            ),
        ),
    ),
)

SWAP = Plot(
    name="a present on the way",
    titles=("A Present on the Way", "{a} Swaps and Swaps", "What Do You Give {c}?", "From Ball to Button"),
    cast="abc",
    values={
        "HOME": ("village", "garden"),
        "FIRST": ("meadow", "forest"),
        "SECOND": ("pond", "beach"),
        "PARTY": ("kitchen", "bedroom"),
        "LAST": ("daisy", "button", "feather", "pebble"),
    },
    beats=(
        page(
            opening("oneday", "HOME"),
            (
                "Under {a.his} arm was a {ball}, a birthday present for a friend. {a.He} {a:cheering}.",
                "{a.He} had tied a ribbon round a {ball}. It was a birthday present, and {a.he} {a~skipped}.",
            ),
        ),
        page(
            (
                "On the way {to:FIRST}, {a} met {b.new}.",
                "{a} {a~walked} {to:FIRST}. There was {b.new}.",
            ),
            (
                '{b.He} {b:sad}. "My ball is gone, and I have only this kite," said {b}.',
                "{b} {b~sat} beside a {kite}, {b:sad.ing}, for there was no wind at all.",
            ),
        ),
        page(
            (
                '"Take the {ball}," said {a}. "It needs no wind." {b} {b:cheering} and gave {a.him} the {kite}.',
                "{a} thought for a moment. Then {a.he} gave {b.him} the {ball} and took the {kite}. {b} {b:cheering}.",
            ),
            (
                '"A kite is a fine present, too," said {a}, {a:happy,waving.ing}.',
                "So now it was a {kite}, and {a} {a~hurried} on.",
            ),
        ),
        page(
            (
                "{To:SECOND} {a} {a~ran}. There an old fisherman had no sail.",
                "Down {at:SECOND}, a sailor without a sail called for help.",
            ),
            (
                '"I need cloth!" So {a} swapped the {kite} for an {umbrella}. {a.He} {a:happy}.',
                "{a} gave away the {kite} and got an {umbrella} for it. {a.He} {a~waved} as the sailor sailed off.",
            ),
        ),
        page(
            (
                "Then it rained on a nest with three naked chicks. {a} {a:sad}.",
                "Seven chicks were out in the rain. {a} {a~stopped}.",
            ),
            (
                "{a} bent {near:so close} that a beak touched {a.his} nose, and put up the {umbrella}. The mother gave {a.him} a {LAST}.",
                "{a.He} put the {umbrella} over the chicks, and for that the mother gave {a.him} a {LAST}.",
            ),
        ),
        page(
            (
                "{t:dusk} all that {a} had was a {LAST}. {a.He} {a~sat down} by the road.",
                "{t:dusk} {a} looked into {a.his} hand. From a fine big present to a {LAST}!",
            ),
            (
                '"I cannot give that to anyone," {a.he} said {a:sad.ly}.',
                "{a.He} {a:sad}. The road lay empty {wide:as far as the eye could see}.",
            ),
        ),
        page(
            (
                "{a} {a~walked} {to:PARTY}, slower and slower. There was the birthday child, {c.new}.",
                "The birthday child {at:PARTY} was {c.new}. {a} {a~tiptoed} in.",
            ),
            (
                '"At last!" called {c}, {c:cheering,waving.ing}. {a} hid {a.his} hands, {a:sad.ing}.',
                "{c} {c~waved} from behind a {cake}. {a} {a:sad}.",
            ),
        ),
        page(
            (
                '{a} held out the {LAST}. "It was bigger this morning," {a.he} said.',
                '"First it was a ball," said {a}, {a:sad.ing}. "And now it is a {LAST}."',
            ),
            (
                '{c} {c~sat down}. "And in between?" {c.he} asked. "Tell me!"',
                '{c} looked at it {near:closely}. {c.He} {c:surprised}. "How did that happen?"',
            ),
        ),
        page(
            (
                "So {a} told of the {ball} and the {kite}, and {c} {c~laughed}.",
                "{a} {a~sat down} and told the whole long story, with every swap. {c} {c:surprised}.",
            ),
            (
                '"That is the best present," said {c}, {c:happy,cheering.ing}. "A story, and a {LAST} to remember it by!"',
                '"You gave four presents today," said {c}, {c:happy,waving.ing}, "and I get the last one." {a} {a:surprised}.',
            ),
        ),
        page(
            (
                "{t:night} there was a knock {at:PARTY}. In came {b} with the {ball}.",
                "Somebody else came {to:PARTY} {t:night}. It was {b}, with the {ball} under {b.his} arm.",
            ),
            (
                '"Is there any cake left?" {b.he} asked, {b:sleepy,waving.ing}. {c} {c:cheering}.',
                "{b} {b:happy}, {c} {c~danced}, and {a} {a~sat down} with a big, big piece.",
            ),
            optional=True,
        ),
        page(
            (
                "{t:nextday} {ac} were {at:HOME}. {c} wore the {LAST} on a ribbon.",
                "{t:nextday} {c} {c~walked} {to:HOME} to see {a}, with the {LAST} on a ribbon.",
            ),
            (
                'On the way somebody threw {c.him} a {ball}. "Catch!" It was {b}, {b:waving.ing}.',
                "There was {b} with the {ball}. So it had come to {c} after all, and {a} {a~laughed}.",
            ),
        ),
    ),
)

PLOTS = (MONSTER, ECHO, SWAP)
