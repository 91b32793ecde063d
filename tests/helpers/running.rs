//! One helper: what it may answer, and how it ends.

use std::env;
use std::io::Read;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use super::helper::{HelperFault, HelperName, Helpers, Question};
use super::login::Login;
use super::login::LoginName;
use crate::script::script;

fn question(server: &str) -> Question {
    let name = LoginName { file: Path::new("/f").into(), entry: "reg.test".into() };
    Question { helper: HelperName::new("fake").unwrap(), server: server.to_owned(), name }
}

async fn ask(body: &str, within: Duration) -> Result<Option<Login>, HelperFault> {
    let folder = TempDir::new().unwrap();
    script(&folder.path().join("docker-credential-fake"), body);
    Helpers { search: folder.path().into(), within }.ask(&question("reg.test:5000")).await
}

#[tokio::test]
async fn a_helper_answers_by_its_output_and_status() {
    let login = |user, secret| Some(Login::of_user(question("").name, user, secret));
    for (script, expected) in [
        (r#"echo '{"ServerURL":"x","Username":"u","Secret":"p"}'"#, Ok(login("u", "p"))),
        // What it was asked, and by which word.
        (r#"echo '{"Username":"'"$(cat)"'","Secret":"'"$*"'"}'"#, Ok(login("reg.test:5000", "get"))),
        (r#"cat >&2; echo '{"Username":"<token>","Secret":"t"}'"#, Ok(login("<token>", "t"))),
        (r#"echo '{"Username":"","Secret":""}'"#, Ok(None)),
        ("echo 'credentials not found in native keychain'; exit 1", Ok(None)),
        ("echo 'Credentials not found'; exit 1", Ok(None)),
        ("echo verysecret; exit 3", Err("it ended with exit status: 3; run it by hand to see what it says")),
        ("echo verysecret", Err("what it says is not docker's format")),
        (r#"echo '{"Username":"u","Secret":["verysecret"]}'"#, Err("what it says is not docker's format")),
        ("exec cat /dev/zero", Err("it said more than 65536 bytes")),
    ] {
        let heard = ask(script, Duration::from_secs(60)).await.map_err(|fault| fault.to_string());
        assert_eq!(heard, expected.map_err(str::to_owned), "{script}");
    }
}

#[tokio::test]
async fn a_helper_that_is_slow_is_given_up_on() {
    let within = Duration::from_millis(50);
    assert!(matches!(ask("exec sleep 1000", within).await, Err(HelperFault::TooSlow(_))));
}

#[tokio::test]
async fn a_helper_that_is_given_up_on_is_killed_with_all_that_it_started() {
    let folder = TempDir::new().unwrap();
    let pipe = folder.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    script(
        &folder.path().join("docker-credential-fake"),
        &format!("exec 3>'{}'; echo up >&3; sleep 1000 | cat", pipe.display()),
    );
    let helpers = Helpers { search: folder.path().into(), within: Duration::from_secs(1000) };
    let up = tokio::task::spawn_blocking(move || {
        let mut pipe = std::fs::File::open(pipe).unwrap();
        pipe.read_exact(&mut [0; 3]).unwrap();
        pipe
    });
    let question = question("");
    let mut pipe = tokio::select! {
        heard = helpers.ask(&question) => panic!("it runs: {heard:?}"),
        pipe = up => pipe.unwrap(),
    };
    // Its end comes when nobody is left who could write to it.
    let rest = tokio::task::spawn_blocking(move || pipe.read_to_end(&mut Vec::new()).unwrap());
    assert_eq!(rest.await.unwrap(), 0);
}

#[tokio::test]
async fn a_helper_is_a_program_in_a_folder_that_is_searched() {
    let (first, second) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    std::fs::write(first.path().join("docker-credential-fake"), "no program").unwrap();
    let search = env::join_paths([Path::new("."), Path::new(""), first.path(), second.path()]).unwrap();
    let helpers = Helpers { search, within: Duration::from_secs(60) };
    assert!(matches!(helpers.ask(&question("")).await, Err(HelperFault::NotFound)));
    script(&second.path().join("docker-credential-fake"), r#"echo '{"Username":"u","Secret":"p"}'"#);
    assert!(helpers.ask(&question("")).await.unwrap().is_some());
}
