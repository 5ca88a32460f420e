"""Writes instruction_following.json beside it: what lm-eval's copy of the IFEval checks says of texts written for this file.

Needs lm-eval 0.4.13, langdetect, immutabledict and nltk with its punkt_tab data. Every instruction is asked of every
response, strictly and loosely; a verdict is one character, in the order of the responses.
"""
import json
import pathlib

import langdetect
import nltk
from lm_eval.tasks.ifeval import instructions_util, utils

langdetect.DetectorFactory.seed = 0
sentences = nltk.tokenize.PunktTokenizer("english")
instructions_util._get_sentence_tokenizer = lambda: sentences

INSTRUCTIONS = [
    ("keywords:existence", {"keywords": ["garden", "rain"]}),
    ("keywords:existence", {"keywords": ["the"]}),
    ("keywords:frequency", {"keyword": "rain", "frequency": 2, "relation": "at least"}),
    ("keywords:frequency", {"keyword": "in", "frequency": 3, "relation": "less than"}),
    ("keywords:forbidden_words", {"forbidden_words": ["rain", "snow"]}),
    ("keywords:forbidden_words", {"forbidden_words": ["yes", "no"]}),
    ("keywords:letter_frequency", {"letter": "e", "let_frequency": 9, "let_relation": "at least"}),
    ("keywords:letter_frequency", {"letter": "Q", "let_frequency": 1, "let_relation": "less than"}),
    *[("language:response_language", {"language": code}) for code in
      "en de fr es pt it pl fi vi sw ru bg uk ar fa ur hi mr ne bn pa gu ta te kn ml th ko ja he".split()],
    ("length_constraints:number_sentences", {"num_sentences": 2, "relation": "at least"}),
    ("length_constraints:number_sentences", {"num_sentences": 3, "relation": "at least"}),
    ("length_constraints:number_sentences", {"num_sentences": 4, "relation": "less than"}),
    ("length_constraints:number_sentences", {"num_sentences": 6, "relation": "less than"}),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2}),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 3}),
    ("length_constraints:number_words", {"num_words": 8, "relation": "at least"}),
    ("length_constraints:number_words", {"num_words": 12, "relation": "less than"}),
    ("length_constraints:nth_paragraph_first_word", {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "it"}),
    ("length_constraints:nth_paragraph_first_word", {"num_paragraphs": 3, "nth_paragraph": 1, "first_word": "Once"}),
    ("detectable_content:number_placeholders", {"num_placeholders": 1}),
    ("detectable_content:number_placeholders", {"num_placeholders": 3}),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}),
    ("detectable_content:postscript", {"postscript_marker": "P.P.S"}),
    ("detectable_content:postscript", {"postscript_marker": "Note:"}),
    ("detectable_format:number_bullet_lists", {"num_bullets": 1}),
    ("detectable_format:number_bullet_lists", {"num_bullets": 2}),
    ("detectable_format:number_bullet_lists", {"num_bullets": 3}),
    ("detectable_format:constrained_response", {}),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 1}),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 2}),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 3}),
    ("detectable_format:multiple_sections", {"section_spliter": "SECTION", "num_sections": 2}),
    ("detectable_format:multiple_sections", {"section_spliter": "Day", "num_sections": 1}),
    ("detectable_format:json_format", {}),
    ("detectable_format:title", {}),
    ("combination:two_responses", {}),
    ("combination:repeat_prompt", {"prompt_to_repeat": "Tell me of the garden."}),
    ("startend:end_checker", {"end_phrase": "That is all."}),
    ("startend:end_checker", {"end_phrase": "any questions?"}),
    ("change_case:capital_word_frequency", {"capital_frequency": 2, "capital_relation": "at least"}),
    ("change_case:capital_word_frequency", {"capital_frequency": 4, "capital_relation": "at least"}),
    ("change_case:capital_word_frequency", {"capital_frequency": 6, "capital_relation": "less than"}),
    ("change_case:english_capital", {}),
    ("change_case:english_lowercase", {}),
    ("punctuation:no_comma", {}),
    ("startend:quotation", {}),
]

RESPONSES = [
    "The rain fell on the garden all day, and the roses drank it.",
    "THE RAIN FELL ON THE GARDEN ALL DAY AND THE ROSES DRANK IT.",
    "the rain fell on the garden all day and the roses drank it.",
    "Rain, rain, go away! Come again another day. We want to play in the garden.",
    "A brainstorm in the drained garden. Nobody was wet.",
    "It did not snow. It never snows in July; so we were glad.",
    "Dr. Smith and Mrs. Jones met at 5 p.m. on Main St. in town. They talked of J. S. Bach. He was great!",
    "We paid $3.50 for 2.5 kg. 3. The rest was free. Was it? Yes... It was. No... nothing else.",
    "He said \"Stop!\" and ran. (He fell.) \"Are you well?\" she asked. 'Yes.' That is all.",
    "He lives in the U.S. The winters are cold there. He moved from the U.K. in Oct. of that year.",
    "1. First, dig.\n2. Then, plant.\n3. Last, water.\nThat is all.",
    "**Bold words.** And then *slanted ones.* And so on.",
    "What?! No way!!! Really? I think so... maybe not.",
    "See Fig. 3 and Prof. Lee's note, e.g. the last one. It is good, i.e. it works. Etc. And more.",
    "A first part of it.\n\nIt is a second part.",
    "Once there was a fox.\n\n\"It's late,\" he said.\n\nNobody heard him.",
    "Once there was a fox.\n\n\n\nIt ran.",
    "Once.\n\n'It ran away\n\nGone.",
    "One ***\nTwo *** Three",
    "*** One\n***\nTwo ***",
    "One *** *** Two",
    "First answer, with care.\n******\nSecond answer, with less.",
    "Same. ****** Same.",
    "******\nOne way.\n******\nAnother way.\n******",
    "One ****** ****** Two",
    "A ****** B ****** C",
    "Dear [name], your parcel from [place] comes on [day].",
    "Dear [name\n], hello [] and [a] [b.",
    "Thanks for all.\n\nP.S. I love the garden.",
    "Thanks.\nP. S. Bring rain coats.\np.p.s. And boots.",
    "PS: no dots here. Note: this one counts.",
    "* one\n* two\n- three",
    "  * one\n**two**\n - three\ntext - four",
    "*\nfoo\n-\n* bar",
    "- a\n\n\n- b",
    "My answer is yes.",
    "I think that My answer is no. for now",
    "my answer is maybe.",
    "*one* and **two** and ***three***",
    "* * and ** ** and *x*",
    "**whole\nline** and *a b c*",
    "SECTION 1\nText here.\nSECTION 2\nMore text.",
    "Section 1: no. SECTION2 yes. SECTION 10 again. Day 1 and day 2.",
    "{\"name\": \"rain\", \"list\": [1, 2, {\"a\": null}]}",
    "```json\n{\"a\": 1}\n```",
    "```JSON [1, 2, 3] ```",
    "``` {\"a\": 1,} ```",
    "Here it is: {\"a\": 1}",
    "\"just text\"",
    "42",
    "<<A Day in the Garden>>\nIt rained.",
    "<< >> and <<\n>>",
    "a <<b>> c <<d",
    "<<<deep>>>",
    "Tell me of the garden. It is green.",
    "  TELL ME OF THE GARDEN. It is green.",
    "You said: Tell me of the garden.",
    "tell me of the\ngarden.",
    "Go now. That is all.",
    "\"We must go. That is all.\"",
    "We must go. That is all!",
    "Do you have any questions?\n",
    "Here is what I ask:\nDo you have *any questions?*\nBye",
    "\"All of it is in quotes, even this.\"",
    " \"Not closed",
    "\"",
    "\"\"",
    "NASA and ESA met in the USA. IBM's CEO DIDN'T come; it CANNOT be helped.",
    "The WORLD-CLASS team of A/B tests: X:Y, (ABC), #TAG and 'Q'.",
    "I am. I was. I WILL be, e.g. at 3PM in R2D2 mode.",
    "HELLO, WORLD! IT'S A GREAT DAY. DON'T YOU THINK SO?",
    "hello there, it is what it is. i don't know why.",
    "1234 5678!",
    "",
    "   \n ",
    "Wow!!!",
    "Sure, here it is:\n* one\n* two\nHope that helps, any questions?",
    "Title\nno commas here at all\nbye, bye",
    "First line,\nSecond line is fine\nThird one, too",
    "Der Garten ist heute sehr nass, weil es den ganzen Tag geregnet hat. Wir gehen nicht nach draußen.",
    "DER GARTEN IST HEUTE SEHR NASS UND WIR GEHEN NICHT HINAUS.",
    "Le jardin est très mouillé aujourd'hui parce qu'il a plu toute la journée. Nous ne sortons pas.",
    "El jardín está muy mojado hoy porque ha llovido todo el día. No vamos a salir de la casa.",
    "O jardim está muito molhado hoje porque choveu o dia todo. Nós não vamos sair de casa.",
    "Il giardino è molto bagnato oggi perché ha piovuto tutto il giorno. Non usciamo di casa.",
    "Ogród jest dziś bardzo mokry, ponieważ padało przez cały dzień. Nie wychodzimy z domu.",
    "Puutarha on tänään hyvin märkä, koska koko päivän on satanut. Me emme mene ulos, mutta se ei haittaa.",
    "Khu vườn hôm nay rất ướt vì trời đã mưa cả ngày. Chúng tôi không đi ra ngoài.",
    "Bustani ni mvua sana leo kwa sababu mvua ilinyesha siku nzima. Sisi hatutoki nje ya nyumba.",
    "Сегодня сад очень мокрый, потому что весь день шёл дождь. Мы не выходим из дома.",
    "Градината днес е много мокра, защото валя през целия ден. Ние няма да излизаме от къщата.",
    "Сад сьогодні дуже мокрий, бо цілий день ішов дощ. Ми не виходимо з дому.",
    "الحديقة مبللة جدا اليوم لأن المطر هطل طوال النهار. نحن لن نخرج من البيت إلى الشارع.",
    "باغ امروز خیلی خیس است چون تمام روز باران بارید. ما از خانه بیرون نمی رویم.",
    "آج باغ بہت گیلا ہے کیونکہ سارا دن بارش ہوتی رہی۔ ہم گھر سے باہر نہیں جائیں گے۔",
    "आज बगीचा बहुत गीला है क्योंकि सारा दिन बारिश होती रही। हम घर से बाहर नहीं जाएंगे।",
    "आज बाग खूप ओली आहे कारण दिवसभर पाऊस पडला. आम्ही घराबाहेर जाणार नाही.",
    "आज बगैंचा धेरै भिजेको छ किनभने दिनभर पानी परेको थियो। हामी घरबाट बाहिर जाँदैनौं।",
    "আজ বাগানটি খুব ভেজা কারণ সারাদিন বৃষ্টি হয়েছে। আমরা বাড়ি থেকে বের হব না।",
    "ਅੱਜ ਬਾਗ਼ ਬਹੁਤ ਗਿੱਲਾ ਹੈ ਕਿਉਂਕਿ ਸਾਰਾ ਦਿਨ ਮੀਂਹ ਪਿਆ। ਅਸੀਂ ਘਰੋਂ ਬਾਹਰ ਨਹੀਂ ਜਾਵਾਂਗੇ।",
    "આજે બગીચો ખૂબ ભીનો છે કારણ કે આખો દિવસ વરસાદ પડ્યો. અમે ઘરની બહાર નહીં જઈએ.",
    "இன்று தோட்டம் மிகவும் ஈரமாக உள்ளது, ஏனெனில் நாள் முழுவதும் மழை பெய்தது.",
    "ఈ రోజు తోట చాలా తడిగా ఉంది, ఎందుకంటే రోజంతా వర్షం కురిసింది.",
    "ಇಂದು ತೋಟ ತುಂಬಾ ಒದ್ದೆಯಾಗಿದೆ, ಏಕೆಂದರೆ ಇಡೀ ದಿನ ಮಳೆ ಬಂದಿತು.",
    "ഇന്ന് പൂന്തോട്ടം വളരെ നനഞ്ഞിരിക്കുന്നു, കാരണം ദിവസം മുഴുവൻ മഴ പെയ്തു.",
    "วันนี้สวนเปียกมากเพราะฝนตกทั้งวัน เราจะไม่ออกจากบ้าน",
    "오늘은 하루 종일 비가 와서 정원이 매우 젖었습니다. 우리는 밖에 나가지 않습니다.",
    "今日は一日中雨が降ったので、庭はとても濡れています。私たちは家から出ません。",
    "הגן רטוב מאוד היום כי ירד גשם כל היום. אנחנו לא יוצאים מהבית.",
    "De tuin is vandaag erg nat, omdat het de hele dag heeft geregend. Wij gaan niet naar buiten.",
    "Trädgården är mycket våt idag eftersom det har regnat hela dagen. Vi går inte ut.",
    "Bahçe bugün çok ıslak çünkü bütün gün yağmur yağdı. Biz evden dışarı çıkmıyoruz.",
    "Kebun itu sangat basah hari ini karena hujan turun sepanjang hari. Kami tidak akan keluar dari rumah.",
    "Grădina este foarte udă astăzi pentru că a plouat toată ziua. Noi nu ieșim din casă.",
    "Zahrada je dnes velmi mokrá, protože celý den pršelo. My nepůjdeme ven, ale to nevadí.",
    "Ο κήπος είναι πολύ βρεγμένος σήμερα γιατί έβρεχε όλη μέρα.",
]


def verdicts(check):
    out = []
    for instruction, arguments in INSTRUCTIONS:
        row = ""
        for response in RESPONSES:
            example = utils.InputExample(0, [instruction], "", [arguments])
            row += str(int(check(example, response).follow_instruction_list[0]))
        out.append(row)
    return out


strict = verdicts(utils.test_instruction_following_strict)
loose = verdicts(utils.test_instruction_following_loose)
golden = {
    "responses": RESPONSES,
    "instructions": [
        {"id": instruction, "arguments": arguments, "strict": s, "loose": l}
        for (instruction, arguments), s, l in zip(INSTRUCTIONS, strict, loose)
    ],
}
out = pathlib.Path(__file__).with_name("instruction_following.json")
out.write_text(json.dumps(golden, ensure_ascii=False, indent=0) + "\n")
