#include "reward/models/model_folder.h"

#include "core/base/str.h"

namespace praetor {

ModelFolder ModelFolder::from_yaml(YamlReader& in) {
  ModelFolder out;
  out.path = in.get_path("path");
  out.stage = in.get_optional_string("stage").value_or("");
  if (in.has("path") == in.has("stage")) {
    in.error_at(in.has("path") ? "path" : "",
                in.has("path")
                    ? "stage is given as well; keep one of the two"
                    : "a model needs path (a folder) or stage (the name of an earlier stage)");
  } else if (in.has("path") && !std::filesystem::exists(out.path / "config.json")) {
    in.error_at("path", str(out.path.string(), " is not a model folder: it has no config.json"));
  }
  return out;
}

}  // namespace praetor
