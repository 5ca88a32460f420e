#include "actors/cli/tokenize.h"

#include <CLI/CLI.hpp>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "actors/cli/commands.h"
#include "core/base/error.h"
#include "core/base/text.h"

namespace praetor::cli {

namespace {

using nlohmann::json;

json parse_row(const std::string& line) {
  if (line.find_first_not_of(" \t\r") == std::string::npos) {
    throw DataError("the line is empty; a JSON value is wanted");
  }
  try {
    return json::parse(line);
  } catch (const json::exception& failure) {
    std::string_view what = failure.what();
    if (const size_t tag = what.find("] "); tag != std::string_view::npos)
      what.remove_prefix(tag + 2);
    throw DataError("not valid JSON: ", printable(what, 300));
  }
}

json encode_row(const Tokenizer& tokenizer, const json& row, bool special) {
  const json* text = &row;
  if (row.is_object()) {
    const auto found = row.find("text");
    if (found == row.end())
      throw DataError("\"text\" is missing; a string or {\"text\": ...} is wanted");
    text = &*found;
  }
  if (!text->is_string()) {
    throw DataError("a string or {\"text\": \"...\"} is wanted, not ", printable(row.dump(), 60));
  }
  return {{"tokens", tokenizer.encode(text->get_ref<const std::string&>(), special)}};
}

json decode_row(const Tokenizer& tokenizer, const json& row, bool special) {
  if (!row.is_object() || !row.contains("tokens") || !row["tokens"].is_array()) {
    throw DataError("{\"tokens\": [...]} is wanted, not ", printable(row.dump(), 60));
  }
  std::vector<int64_t> tokens;
  for (const json& token : row["tokens"]) {
    if (!token.is_number_integer())
      throw DataError("tokens: ", printable(token.dump(), 60), " is not a token id");
    const bool huge =
        token.is_number_unsigned() && token.get<uint64_t>() > static_cast<uint64_t>(INT64_MAX);
    if (huge || !tokenizer.id_to_token(token.get<int64_t>())) {
      throw DataError("tokens: ",
                      token.dump(),
                      " is not a token; ids go from 0 to ",
                      tokenizer.vocab_size() - 1);
    }
    tokens.push_back(token.get<int64_t>());
  }
  return {{"text", tokenizer.decode(tokens, !special)}};
}

}  // namespace

void tokenize_lines(const Tokenizer& tokenizer,
                    const TokenizeOptions& options,
                    std::istream& in,
                    std::ostream& out) {
  std::string line;
  for (int64_t number = 1; std::getline(in, line); ++number) {
    json result;
    try {
      const json row = parse_row(line);
      result = options.decode ? decode_row(tokenizer, row, options.special)
                              : encode_row(tokenizer, row, options.special);
    } catch (const DataError& failure) {
      out.flush();
      throw DataError("stdin:", number, ": ", failure.what());
    }
    out << result.dump() << '\n';
    if (!out) throw IoError("stdout: cannot write the row of line ", number);
  }
  out.flush();
  if (!out) throw IoError("stdout: cannot write");
}

void add_tokenize(CLI::App& app, int&) {
  struct Arguments {
    std::string model;
    bool no_special = false;
    bool decode = false;
  };
  auto arguments = std::make_shared<Arguments>();
  CLI::App* command =
      app.add_subcommand("tokenize", "Turn text into token ids, or ids into text, line by line");
  command->add_option("--model", arguments->model, "Folder with tokenizer.json or tokenizer.model")
      ->required()
      ->type_name("DIR");
  command->add_flag(
      "--decode", arguments->decode, "Read {\"tokens\": [...]}, write {\"text\": ...}");
  command->add_flag("--no-special",
                    arguments->no_special,
                    "Add no BOS or EOS; with --decode, leave special tokens out");
  command->footer(
      "Reads JSON lines from stdin: a string or {\"text\": ...}. Writes {\"tokens\": [...]} for "
      "each.\n"
      "Example: echo '\"Once upon a time\"' | praetor tokenize --model MODEL_DIR\n"
      "A bad line ends the program with exit code 65 and \"stdin:LINE: what is wrong\".");
  command->callback([arguments] {
    const auto tokenizer = Tokenizer::load(arguments->model);
    std::ios::sync_with_stdio(false);
    tokenize_lines(*tokenizer, {arguments->decode, !arguments->no_special}, std::cin, std::cout);
  });
}

}  // namespace praetor::cli
