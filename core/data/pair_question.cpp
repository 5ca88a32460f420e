#include "core/data/pair_question.h"

#include "core/base/error.h"
#include "core/base/text.h"

namespace praetor {

namespace {

const std::vector<std::string> kNames = {"prompt", "a", "b"};

int64_t answer_token(const std::string& word, const Tokenizer& tokenizer) {
  Row row;
  row.prompt = "a";
  row.completion = word;
  TextFormat plain;
  plain.append_eos = false;
  const Example example = completion_example(row, tokenizer, plain, 0);
  std::vector<int64_t> tokens;
  for (size_t i = 0; i < example.tokens.size(); ++i) {
    if (example.target[i] != 0) tokens.push_back(example.tokens[i]);
  }
  if (tokens.size() == 1) return tokens.front();
  std::vector<std::string> pieces;
  for (const int64_t token : tokens)
    pieces.push_back(str("\"", tokenizer.id_to_token(token).value_or("?"), "\""));
  throw DataError("the answer \"",
                  printable(word),
                  "\" is ",
                  tokens.size(),
                  " tokens (",
                  join(pieces, ", "),
                  "); one that is a single token is wanted");
}

}  // namespace

PairQuestion::PairQuestion() : text(TextTemplate::parse(kPairQuestionText)) {}

PairQuestion PairQuestion::from_yaml(YamlReader& in) {
  PairQuestion question;
  if (in.has("text")) {
    question.text = TextTemplate::from_yaml(in, "text", kNames);
    if (!(question.text.holds("a") && question.text.holds("b")))
      in.error_at("text", "holds one of the two replies only; {a} and {b} are wanted");
  } else {
    in.get("text", std::string(kPairQuestionText));  // for the resolved document
  }
  const auto answers =
      in.get("answers", std::vector<std::string>(question.answers.begin(), question.answers.end()));
  if (answers.size() != 2 || answers[0] == answers[1]) {
    in.error_at("answers", "two different words are wanted: for {a}, then for {b}");
    return question;
  }
  question.answers = {answers[0], answers[1]};
  return question;
}

std::string PairQuestion::fill(const std::string& prompt,
                               const std::string& a,
                               const std::string& b) const {
  return text.fill({{"prompt", prompt}, {"a", a}, {"b", b}});
}

std::vector<int64_t> question_tokens(const std::string& question,
                                     const Tokenizer& tokenizer,
                                     const TextFormat& format) {
  Row row;
  row.prompt = question;
  return prompt_tokens(row, tokenizer, format);
}

std::array<int64_t, 2> answer_tokens(const std::array<std::string, 2>& words,
                                     const Tokenizer& tokenizer) {
  const std::array<int64_t, 2> out = {answer_token(words[0], tokenizer),
                                      answer_token(words[1], tokenizer)};
  if (out[0] == out[1]) throw DataError("the two answers are the same token, ", out[0]);
  return out;
}

std::vector<Example> pair_question_examples(const Row& row,
                                            const PairQuestion& question,
                                            const std::array<int64_t, 2>& answers,
                                            const Tokenizer& tokenizer,
                                            const TextFormat& format) {
  // The question is what is wrapped into a turn, not the prompt within it.
  TextFormat inner = format;
  inner.wrap_prompt = false;
  const std::string prompt = prompt_text(row, tokenizer, inner);
  std::vector<Example> out;
  for (const bool chosen_first : {true, false}) {
    const std::string& a = chosen_first ? row.chosen : row.rejected;
    const std::string& b = chosen_first ? row.rejected : row.chosen;
    Example& example = out.emplace_back();
    example.tokens = question_tokens(question.fill(prompt, a, b), tokenizer, format);
    example.tokens.push_back(answers[chosen_first ? 0 : 1]);
    example.target.assign(example.tokens.size(), 0);
    example.target.back() = 1;
  }
  return out;
}

}  // namespace praetor
