"""Names of the cast, each with its one pronoun.

No name is also a word that may begin a sentence, so that a capitalized name is always a character.
"""

from __future__ import annotations

_SHE = """
Ada Adele Agnes Alba Alma Amelie Anna Anouk Asta Astrid Aya Beatrix Bella Bettina Birgit Bonnie Brenda Cara Carla
Cecily Celia Chloe Clara Cleo Cora Dagny Dalia Daphne Della Dora Dorothy Edith Effie Elena Elisa Ella Elsie Emilia
Emma Erin Esme Estelle Etta Eva Fatima Fiona Flora Frida Gemma Gerda Gilda Greta Gwen Hanna Hattie Hedda Heidi Helga
Ida Ilse Ingrid Irma Isla Jana Jemima Josie Juna Kaja Katya Kira Lena Lila Lily Linnea Lotta Lucy Luna Mabel Maja
Marta Matilda Maya Mia Mila Mimi Minna Molly Nadia Nell Nina Nora Olga Paula Petra Polly Priya Rita Romy Rosa Runa
Sara Selma Signe Sofia Stella Suki Tess Thea Tilda Tilly Ursula Vera Viola Wanda Wilma Yara Yuki Zelda Zoe
Amina Aisha Adaeze Akua Abena Adwoa Zainab Zanele Thandi Nomsa Lindiwe Naledi Wanjiru Achieng Makena Nyokabi Fatou
Aminata Mariama Safiya Halima Hodan Selam Tigist Almaz Leila Yasmin Noor Salma Zahra Rania Samira Soraya Shirin
Parisa Nasrin Roya Ayse Elif Zeynep Defne Emine Nilufer Aigul Gulnara Madina Ananya Aditi Lakshmi Meera Kavya Divya
Deepa Radha Sunita Padma Sanduni Meiling Xiaoli Hana Haruka Sakura Akiko Naoko Keiko Emiko Michiko Jiwoo Minji
Soyeon Linh Thuy Huong Malee Siriporn Dewi Putri Wulan Kartika Tala Ligaya Luningning Leilani Kalea Anahera Aroha
Hinemoa Marama Lupe Ximena Xochitl Itzel Citlali Guadalupe Lupita Catalina Valentina Camila Luciana Paloma Pilar
Consuelo Marisol Rosario Killa Nayra Sayen Aiyana Winona Kaya Chenoa Pipaluk Naja Ludmila Svetlana Oksana Zofia
Kasia Agnieszka Jadwiga Milena Bojana Vesna Zdenka Ivana Danica Zora Snezana Raluca Ileana Ioana Eleni Aino Helmi
Solveig Ragnhild Gudrun Sigrid Tove Aoife Niamh Siobhan Bronwyn Carys Nerys Eilidh Shoshana Tamar Yael Naomi Miriam
Ana Inaya Bintou
"""
_HE = """
Adam Alfie Amos Anton Archie Arlo Arne Arthur Asher Axel Barnaby Basil Benno Bertie Bjorn Boris Bruno Caspar Cedric
Chester Clem Conrad Cosmo Cyril Dario Dexter Dmitri Dougal Dylan Edgar Edwin Elias Emil Enzo Erik Ernest Ezra Fabio
Felix Ferdy Finn Floyd Franz Fritz Gabe Georg Gino Gus Hamish Hank Harald Harvey Hector Henry Hugo Humphrey Igor
Ivan Ivo Jasper Jonas Jorge Julian Kasper Klaus Lars Leo Leon Linus Lorenzo Louis Ludo Lukas Magnus Marcel Mario
Mats Max Milo Mischa Monty Morris Nico Niels Noah Oliver Olaf Omar Orson Oscar Otis Otto Pablo Percy Peter Pip
Quentin Ralph Rasmus Rico Rolf Rory Rufus Rupert Samir Sebastian Silas Simon Sven Tariq Teddy Theo Toby Tom Tomas
Ulf Victor Viggo Waldo Walter Wesley Wilbur Yuri Zeke Zico
Abdi Abebe Kwame Kwesi Ekow Chidi Emeka Obinna Ifeanyi Tunde Femi Babatunde Segun Musa Ibrahim Moussa Ousmane
Mamadou Amadou Boubacar Cheikh Sipho Thabo Themba Mandla Jabulani Tendai Farai Juma Kamau Otieno Mwangi Dawit
Tesfaye Yonas Hassan Hussein Ahmed Mahmoud Youssef Khalid Karim Faisal Rashid Jamal Zayd Tarek Nabil Idris Anwar
Farid Reza Dariush Kaveh Babak Emre Mehmet Kerem Orhan Yusuf Timur Aybek Daulet Arjun Rohan Vikram Sanjay Rahul
Aarav Ashok Gopal Mohan Suresh Nuwan Kasun Dorje Batu Ganbat Jian Haoran Kenji Haruto Takeshi Hiroshi Akira Daisuke
Satoshi Minho Jisung Seojun Minh Quang Tuan Thanh Somchai Arthit Budi Agus Wayan Bayu Rizal Makoa Keoni Kai Tane
Rangi Wiremu Hemi Sione Tomasi Mateo Diego Santiago Joaquin Rodrigo Alejandro Emiliano Thiago Joao Rafael Caetano
Raimundo Nahuel Lautaro Amaru Tenoch Ahanu Nanuq Aqqaluk Miroslav Bogdan Stanislav Vladimir Bohdan Taras Mykola
Wojtek Zbigniew Jarek Vaclav Zdenek Dusan Goran Luka Nikola Radu Mihai Ionel Stavros Yannis Kostas Eino Aarne Toivo
Jussi Leif Gunnar Torvald Sigurd Halvard Eirik Snorri Fionn Padraig Cormac Gethin Rhys Emrys Eitan Avi Lazar Zog
"""
_HELD_OUT_SHE = """
Agatha Bibi Camille Doris Elvira Freya Ginny Harriet Imogen Juno Leonie Marnie Nellie Odette Saskia
Zuri Nkechi Wangari Chipo Esi Farah Golnar Hatice Indira Jyoti Kumiko Ngoc Marisela Quilla Raisa Tamsin Ulla Vaitea
Xiadani Yewande
"""
_HELD_OUT_HE = """
Albert Bartek Corin Dante Elmer Fergus Gilbert Horace Ignatz Jakob Kofi Lionel Mungo Ned Osvald Ravi
Adebayo Dimitar Eero Fahad Hamza Itzcoatl Jin Lwazi Nodir Paulo Quoc Rustam Sefa Tupaq Umut Vusi Xavi Yaroslav Zaki
Bjarki
"""

SHE = tuple(_SHE.split())
HE = tuple(_HE.split())
HELD_OUT_SHE = tuple(_HELD_OUT_SHE.split())
HELD_OUT_HE = tuple(_HELD_OUT_HE.split())

PRONOUNS: dict[str, str] = dict.fromkeys(SHE + HELD_OUT_SHE, "she") | dict.fromkeys(HE + HELD_OUT_HE, "he")


def names_of(split: str, pronoun: str) -> tuple[str, ...]:
    """The names that a split may use for a pronoun ("she" or "he")."""
    table = {
        ("train", "she"): SHE,
        ("train", "he"): HE,
        ("heldout", "she"): HELD_OUT_SHE,
        ("heldout", "he"): HELD_OUT_HE,
    }
    if (split, pronoun) not in table:
        raise ValueError(f"no names for split {split!r} and pronoun {pronoun!r}: use train or heldout, she or he")
    return table[split, pronoun]
