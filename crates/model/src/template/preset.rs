//! Templates for the receivers that many people have, in the shape that each accepts.

use super::{InvalidTemplate, TemplateForm};

/// A template that comes with Fanfare.
#[derive(Debug)]
pub struct TemplatePreset {
    /// Its name.
    pub name: &'static str,
    /// Where it posts to, and what the endpoint needs for that.
    pub description: &'static str,
    /// The media type of the result.
    pub media_type: &'static str,
    /// The parameters that it cannot do without.
    pub required: &'static [&'static str],
    /// The parameters that it may be given.
    pub optional: &'static [&'static str],
    /// The template itself.
    pub source: &'static str,
}

impl TemplatePreset {
    /// All of them.
    pub const ALL: &[Self] = &[
        Self {
            name: "slack",
            description: "A message in a Slack channel. URL: an incoming webhook, https://hooks.slack.com/services/…",
            media_type: "application/json",
            required: &[],
            optional: &["title"],
            source: include_str!("presets/slack.jinja"),
        },
        Self {
            name: "discord",
            description: "A message in a Discord channel. URL: a webhook, https://discord.com/api/webhooks/…",
            media_type: "application/json",
            required: &[],
            optional: &["title", "username"],
            source: include_str!("presets/discord.jinja"),
        },
        Self {
            name: "telegram",
            description: "A message of a Telegram bot. URL: https://api.telegram.org/bot<token>/sendMessage",
            media_type: "application/json",
            required: &["chat_id"],
            optional: &["title"],
            source: include_str!("presets/telegram.jinja"),
        },
        Self {
            name: "teams",
            description: "An adaptive card in Microsoft Teams. URL: a workflow that starts \
                          \"when a Teams webhook request is received\"",
            media_type: "application/json",
            required: &[],
            optional: &["title"],
            source: include_str!("presets/teams.jinja"),
        },
        Self {
            name: "zapier",
            description: "The event as flat JSON for a Zap. URL: a catch hook, https://hooks.zapier.com/hooks/catch/…",
            media_type: "application/json",
            required: &[],
            optional: &[],
            source: include_str!("presets/zapier.jinja"),
        },
        Self {
            name: "twilio",
            description: "A text message by Twilio. URL: \
                          https://api.twilio.com/2010-04-01/Accounts/<sid>/Messages.json, with basic \
                          authentication by account SID and auth token",
            media_type: "application/x-www-form-urlencoded",
            required: &["from", "to"],
            optional: &["title"],
            source: include_str!("presets/twilio.jinja"),
        },
    ];

    /// The preset of this name.
    pub fn named(name: &str) -> Result<&'static Self, InvalidTemplate> {
        let found = Self::ALL.iter().find(|preset| preset.name == name);
        found.ok_or_else(|| {
            let names: Vec<_> = Self::ALL.iter().map(|preset| preset.name).collect();
            let problem = format!(
                "there is no preset `{name}`: accepted are `{}`",
                names.join("`, `")
            );
            InvalidTemplate::of("preset", &problem)
        })
    }

    /// Checks what is given beside the name of this preset.
    pub(super) fn check(&self, form: &TemplateForm) -> Result<(), InvalidTemplate> {
        let name = self.name;
        if form.media_type.is_some() {
            let problem = format!(
                "the preset `{name}` is `{}`: accepted is none beside a preset",
                self.media_type
            );
            return Err(InvalidTemplate::of("media_type", &problem));
        }
        for required in self.required {
            let given = form.parameters.get(*required);
            if given.is_none_or(|value| value.trim().is_empty()) {
                let field = format!("parameters.{required}");
                let problem = format!(
                    "missing: the preset `{name}` needs `{}`",
                    self.required.join("`, `")
                );
                return Err(InvalidTemplate::of(&field, &problem));
            }
        }
        for given in form.parameters.keys() {
            let mut known = self.required.iter().chain(self.optional);
            if !known.any(|known| known == given) {
                let field = format!("parameters.{given}");
                let accepted = [self.required, self.optional].concat().join("`, `");
                let problem = if accepted.is_empty() {
                    format!("the preset `{name}` has no parameters")
                } else {
                    format!("the preset `{name}` has no such parameter: accepted are `{accepted}`")
                };
                return Err(InvalidTemplate::of(&field, &problem));
            }
        }
        Ok(())
    }
}
