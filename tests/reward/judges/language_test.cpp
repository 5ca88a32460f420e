#include "reward/judges/language.h"

#include <algorithm>
#include <utility>

#include "tests/support/catch.h"

namespace praetor {

namespace {
using Codes = std::vector<std::string>;
}

TEST_CASE("a sentence shows its language", "[reward][cpu]") {
  const std::vector<std::pair<const char*, const char*>> texts = {
      {"cs", "Nevím, jestli je to pravda, ale myslím si, že ano."},
      {"de", "Ich weiß nicht, ob das stimmt, aber ich glaube schon."},
      {"en", "I do not know whether this is true, but I think so."},
      {"es", "No sé si esto es verdad, pero creo que sí."},
      {"fi", "En tiedä onko se totta, mutta luulen niin."},
      {"fr", "Je ne sais pas si c'est vrai, mais je le crois."},
      {"id", "Saya tidak tahu apakah itu benar, tetapi saya pikir begitu."},
      {"it", "Non so se questo è vero, ma credo di sì."},
      {"nl", "Ik weet niet of dit waar is, maar ik denk van wel."},
      {"pl", "Nie wiem, czy to prawda, ale myślę, że tak."},
      {"pt", "Não sei se isso é verdade, mas acho que sim."},
      {"ro", "Nu știu dacă este adevărat, dar cred că da."},
      {"sv", "Jag vet inte om det är sant, men jag tror det."},
      {"sw", "Sijui kama hii ni kweli, lakini nadhani ni hivyo."},
      {"tr", "Bunun doğru olup olmadığını bilmiyorum ama öyle olduğunu düşünüyorum."},
      {"vi", "Tôi không biết điều này có đúng không, nhưng tôi nghĩ là có."},
      {"bg", "Не знам дали това е вярно, но мисля, че да."},
      {"ru", "Я не знаю, правда ли это, но думаю, что да."},
      {"uk", "Я не знаю, чи це правда, але думаю, що так."},
      {"ar", "لا أعرف إذا كان هذا صحيحا، لكن أعتقد ذلك."},
      {"fa", "نمی دانم این درست است یا نه، اما فکر می کنم هست."},
      {"ur", "مجھے نہیں معلوم کہ یہ سچ ہے یا نہیں۔"},
      {"hi", "मुझे नहीं पता कि यह सच है या नहीं।"},
      {"mr", "हे खरे आहे की नाही ते मला माहित नाही."},
      {"ne", "मलाई थाहा छैन यो साँचो हो कि होइन।"},
      {"bn", "আমি জানি না এটা সত্যি কিনা।"},
      {"gu", "મને ખબર નથી કે આ સાચું છે."},
      {"pa", "ਮੈਨੂੰ ਨਹੀਂ ਪਤਾ ਕਿ ਇਹ ਸੱਚ ਹੈ।"},
      {"ta", "இது உண்மையா என்று எனக்குத் தெரியாது."},
      {"te", "ఇది నిజమో కాదో నాకు తెలియదు."},
      {"kn", "ಇದು ನಿಜವೇ ಎಂದು ನನಗೆ ಗೊತ್ತಿಲ್ಲ."},
      {"ml", "ഇത് ശരിയാണോ എന്ന് എനിക്കറിയില്ല."},
      {"th", "ฉันไม่รู้ว่านี่เป็นความจริงหรือไม่"},
      {"ko", "이것이 사실인지 모르겠습니다."},
      {"ja", "これが本当かどうか分かりません。"},
      {"zh", "我不知道这是不是真的。"},
      {"he", "אני לא יודע אם זה נכון."},
      {"el", "Δεν ξέρω αν αυτό είναι αλήθεια."},
  };
  Codes seen;
  for (const auto& [code, text] : texts) {
    CAPTURE(code, text);
    CHECK(likely_languages(text) == Codes{code});
    seen.emplace_back(code);
  }
  std::ranges::sort(seen);
  CHECK(seen == known_languages());
}

TEST_CASE("case does not hide a language", "[reward][cpu]") {
  CHECK(likely_languages("I DO NOT KNOW WHETHER THIS IS TRUE.") == Codes{"en"});
  CHECK(likely_languages("Я НЕ ЗНАЮ, ПРАВДА ЛИ ЭТО.") == Codes{"ru"});
}

TEST_CASE("most letters decide, whatever stands among them", "[reward][cpu]") {
  CHECK(likely_languages("これは API と呼ばれるものです。") == Codes{"ja"});
  CHECK(likely_languages("The word is 雨.") == Codes{"en"});
}

TEST_CASE("a short text without a common word may be of any language of its script",
          "[reward][cpu]") {
  const auto hello = likely_languages("Hmm!");
  REQUIRE(hello);
  CHECK(std::ranges::find(*hello, "en") != hello->end());
  CHECK(std::ranges::find(*hello, "de") != hello->end());
  CHECK(std::ranges::find(*hello, "ru") == hello->end());
}

TEST_CASE("a long one is of none, and so is an unknown script", "[reward][cpu]") {
  std::string noise;
  for (int i = 0; i < kTellingWords; ++i) noise += "xqz ";
  CHECK(likely_languages(noise) == Codes{});
  CHECK(likely_languages("Ես չգիտեմ") == Codes{});
}

TEST_CASE("without letters there is no language", "[reward][cpu]") {
  CHECK_FALSE(likely_languages(""));
  CHECK_FALSE(likely_languages("12 + 3 = ?!"));
}

}  // namespace praetor
