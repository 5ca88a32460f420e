#include "reward/judges/language_profiles.h"

#include <array>

namespace praetor {

namespace {

constexpr auto kProfiles = std::to_array<LanguageProfile>({
    {"ar",
     Script::kArabic,
     "في من على إلى أن هذا هذه التي الذي كان كانت مع عن لا ما هو هي و أو ثم قد كل بعد قبل بين عند "
     "لم لن ليس نحن أنا أنت يمكن يجب حيث كما لكن إذا هناك ذلك",
     "ةىإأؤ"},
    {"bg",
     Script::kCyrillic,
     "и на да се е от за в са не с че по ще към като до това но или при той тя те ние аз съм беше "
     "бъде може има няма само още много който която което които след преди така както",
     "ъ"},
    {"bn", Script::kBengali, "", ""},
    {"cs",
     Script::kLatin,
     "a se na je že do to jsem jsou o ale za by pro jako po tak ve si jeho od když už jen "
     "bude "
     "byl byla bylo nebo které který která aby není může také při své",
     "ěřů"},
    {"de",
     Script::kLatin,
     "der die das und ist in den von zu mit sich des auf für nicht ein eine einen einem einer auch "
     "es "
     "an werden aus er hat dass sie nach wird bei ich du wir ihr sind war wie als oder aber so "
     "wenn "
     "nur noch über vor mein dein kann sehr im am zum zur haben",
     "ßäü"},
    {"el", Script::kGreek, "", ""},
    {"en",
     Script::kLatin,
     "the be to of and a in that have i it for not on with he as you do at this but his by from "
     "they "
     "we say her she or an will my one all would there their what so up out if about who get which "
     "go me when make can like no just him know take is are was were been has had your its our "
     "more "
     "some any how then than these those into also very",
     ""},
    {"es",
     Script::kLatin,
     "el la de que y a en un ser se no haber por con su para como estar tener le lo todo pero más "
     "hacer o poder decir este ir otro ese si me ya ver porque dar cuando él muy sin vez mucho "
     "saber "
     "qué sobre mi alguno mismo yo también hasta año dos querer entre así los las una del es al "
     "son "
     "está fue eso esta hay nos",
     "ñ¿¡"},
    {"fa",
     Script::kArabic,
     "در به از که این با را است آن برای یک خود تا کرد بر هم نیز گفت می شود شد اما دارد باید او ما "
     "هستند بود بودند من تو شما آنها هر ها های نمی کنید کنند کند هست چه یا اگر",
     "پچژگیک"},
    {"fi",
     Script::kLatin,
     "ja on ei että se hän oli olla en ovat kun mutta niin kuin jos myös joka tämä sen ole mitä "
     "minä "
     "sinä he me te voi vain nyt jo tai sekä mukaan hänen sitä siitä ollut kanssa jotka siellä "
     "vielä "
     "kaikki hyvin minun sinun tässä olen",
     "ä"},
    {"fr",
     Script::kLatin,
     "le de un être et à il avoir ne je son que se qui ce dans en du elle au pour pas vous par sur "
     "faire plus dire me on mon lui nous comme mais pouvoir avec tout y aller voir bien où sans tu "
     "ou "
     "leur si la les des une est sont cette ces était aux été très c'est d'un d'une qu'il n'est",
     "çêèœù"},
    {"gu", Script::kGujarati, "", ""},
    {"he", Script::kHebrew, "", ""},
    {"hi",
     Script::kDevanagari,
     "है हैं के की का में और से को पर यह वह कि एक ने भी नहीं हो था थे थी इस तो जो कर लिए अपने या "
     "करने साथ बाद मैं हम आप तुम क्या उस कुछ होता होती सकते रहा रही रहे गया",
     ""},
    {"id",
     Script::kLatin,
     "yang dan di itu dengan untuk tidak ini dari dalam akan pada juga saya ke karena tersebut "
     "bisa "
     "ada mereka lebih kata tahun sudah atau saat oleh menjadi orang ia telah adalah seperti "
     "sebagai "
     "bahwa dapat para harus namun kita kami anda",
     ""},
    {"it",
     Script::kLatin,
     "il di e che la a in un essere per non avere con si da come io questo ma tutto fare più lo mi "
     "anche della sono le dei del è nel alla una gli i al delle ed ha ho se o su quando molto era "
     "hanno loro nella sul cosa perché suo sua",
     "ìò"},
    {"ja", Script::kKana, "", ""},
    {"kn", Script::kKannada, "", ""},
    {"ko", Script::kHangul, "", ""},
    {"ml", Script::kMalayalam, "", ""},
    {"mr",
     Script::kDevanagari,
     "आहे आहेत आणि या हे ते ही तो ती मी आम्ही तुम्ही काय नाही होते होता होती करून केले केला मध्ये "
     "साठी पण म्हणून असे आपण आपल्या त्या त्यांनी एक की व च झाले झाला असते करतात तर येथे खूप माझे "
     "माझा",
     "ळ"},
    {"ne",
     Script::kDevanagari,
     "छ छन् हो र को मा ले लाई यो त्यो पनि एक गर्न भएको थियो थिए हुन्छ गर्छ गरेको तर वा म हामी तपाईं "
     "उनी के छैन गर्नुहोस् हुने भने लागि सबै धेरै अनि मेरो हाम्रो नेपाल बाट देखि गर्ने",
     ""},
    {"nl",
     Script::kLatin,
     "de en van ik te dat die in een hij het niet zijn is was op aan met als voor had er maar om "
     "hem "
     "dan zou of wat mijn men dit zo door over ze zich bij ook tot je mij uit der daar haar naar "
     "heb "
     "hoe heeft hebben deze want nog zal kan meer wij worden wordt",
     ""},
    {"pa", Script::kGurmukhi, "", ""},
    {"pl",
     Script::kLatin,
     "i w nie na się z do to że jest o jak a po co tak za od ale jego przez czy dla ten być może "
     "ja "
     "tylko jako był była było są które który która oraz bardzo już także jej ich mnie tego tym "
     "gdy",
     "łąęśźżćń"},
    {"pt",
     Script::kLatin,
     "o de e que do da em um para é com não uma os no se na por mais as dos como mas foi ao ele "
     "das "
     "tem à seu sua ou ser quando muito há nos já está eu também só pelo pela até isso ela entre "
     "era "
     "depois sem mesmo aos ter seus quem nas me esse eles você são pode",
     "ãõç"},
    {"ro",
     Script::kLatin,
     "și de în a la cu că o nu este pe din un care pentru să mai se sunt ca dar fi sau am au lui "
     "această acest fost prin când foarte ei el ea după între despre poate toate fără unui unei",
     "ășțâşţ"},
    {"ru",
     Script::kCyrillic,
     "и в не на я быть он с что а по это она этот к но они мы весь который из у то за свой от так "
     "о "
     "же ты вы для мочь все как бы или если его её их был была было были только уже при есть нет "
     "когда очень чтобы во со до",
     "ыэё"},
    {"sv",
     Script::kLatin,
     "och det att i en jag hon som han på den med var sig för så till är men ett om hade de av "
     "icke "
     "mig du henne då sin nu har inte hans honom skulle hennes där min man ej vid kunde något från "
     "ut "
     "när efter upp vi dem vara vad över kan eller också",
     "å"},
    {"sw",
     Script::kLatin,
     "na ya wa kwa ni katika za la cha kama hii hiyo huo huu hizo hao yake wake wao yangu wangu "
     "sana "
     "pia lakini au ili kuwa alikuwa ambao ambayo watu mtu siku moja kila baada kabla sasa hapa "
     "hivyo "
     "si hakuna yetu wetu mimi wewe yeye sisi ninyi vya kwamba bila zaidi wote",
     ""},
    {"ta", Script::kTamil, "", ""},
    {"te", Script::kTelugu, "", ""},
    {"th", Script::kThai, "", ""},
    {"tr",
     Script::kLatin,
     "ve bir bu da de için çok ile ne o daha gibi olarak ama kadar olan var en ben sen biz siz "
     "onlar "
     "değil mi sonra her yok ki şey oldu olduğu ya veya çünkü göre kendi bana sana onun böyle iyi "
     "zaman",
     "ğışö"},
    {"uk",
     Script::kCyrillic,
     "і в не на що я з у це він до та а як за по від про але так й вона вони ми ви ти його її їх "
     "бути "
     "був була було були є для або якщо який яка яке які тільки вже також коли дуже щоб при цей "
     "може "
     "немає під",
     "іїєґ"},
    {"ur",
     Script::kArabic,
     "ہے ہیں کے کی کا میں اور سے کو پر یہ وہ کہ ایک نے بھی نہیں ہو تھا تھے تھی اس تو جو کر لیے "
     "اپنے "
     "یا کرنے ساتھ بعد ہم آپ کیا کچھ ہوتا ہوتی سکتے رہا رہی رہے گیا بہت جب تک",
     "ٹڈڑںےہھ"},
    {"vi",
     Script::kLatin,
     "và của là có cho không được một trong người những các với này đã để tôi khi đó như ở thì "
     "nhiều "
     "ra cũng từ đến về trên anh chúng họ bạn phải làm rất hay sẽ sau nếu việc còn mà vào",
     "đơưạảấầẩẫậắằẳẵặẹẻẽềểễệỉịọỏốồổỗộớờởỡợụủứừửữựỳỵỷỹ"},
    {"zh", Script::kHan, "", ""},
});

}  // namespace

std::span<const LanguageProfile> language_profiles() {
  return kProfiles;
}

}  // namespace praetor
